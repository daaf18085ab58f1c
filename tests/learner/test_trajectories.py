"""Trajectories of a step's completions."""

from __future__ import annotations

from learner.batch import step_batch
from learner.trajectories import last_answer, trajectories, turns_before
from tests.learner.builders import layer, solve_layer
from tests.learner.trajectory_cases import trajectory

CHAIN = [solve_layer(), *[layer()] * 3]


def test_turns_of_a_trajectory_come_first_to_last_however_the_step_lists_them() -> None:
    made = [*trajectory("q/1", [0, 1, 1, 0]), *trajectory("q/2", [1, 1])]
    batch = step_batch(made[::-1], CHAIN)
    found = trajectories(batch)
    assert found == {"q/1": [5, 4, 3, 2], "q/2": [1, 0]}
    assert last_answer(batch, found["q/1"]) == 3 and last_answer(batch, found["q/2"]) == 1


def test_a_turn_has_read_the_verdict_before_it_and_not_only_its_parent() -> None:
    made = trajectory("q/1", [0, 1, 1, 0])
    known = {one.completion_id: one for one in made}
    assert made[2].parent_id == "q/1"
    assert turns_before(made[3], known) == made[:3]
    assert turns_before(made[0], known) == []
