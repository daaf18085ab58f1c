"""S2R: turns that came after the same rewards, and whole trajectories, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from learner.batch import TrainingBatch, build_batch
from learner.plugin import LearnerPlugin
from mgrpo.config import ObjectiveConfig
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError
from mgrpo.plugin import Plugin, load_plugins
from mgrpo.types import Completion
from tests.learner.builders import layer, plugin, solve_layer, with_status
from tests.learner.trajectory_cases import trajectory

LATER = layer(group_size=1, group_by="batch", select="none", advantage="none")
CHAIN = [solve_layer(advantage="none"), LATER, LATER, LATER]
STEP = [
    *trajectory("p/1", [1, 1]),
    *trajectory("p/2", [0, 1, 1, 1]),
    *trajectory("q/1", [0, 1, 0, 0]),
    *trajectory("q/2", [0, 0]),
]
"""Two problems. The first answer of p/1 is right and accepted. Those of p/2 and q/1 are wrong and
rejected; the second one of p/2 is right and accepted, that of q/1 wrong, and accepted as well. The
wrong answer of q/2 is accepted."""


def built(completions: list[Completion], **settings: Any) -> TrainingBatch:
    own = plugin("s2r", 1, 2, 3, 4, **settings)
    return build_batch(completions, CHAIN, ObjectiveConfig(), plugins=[own])


def advantages(batch: TrainingBatch) -> dict[str, float]:
    return {one.completion_id: one.advantage for one in batch.selections}


def test_a_turn_is_compared_with_turns_of_the_step_after_the_same_rewards() -> None:
    """R is 1 or -1. First answers: 1, -1, -1, -1, mean -1/2. Verdicts on a wrong one: 1, 1, -1,
    mean 1/3; on a right one: alone. Second answers behind (-1, 1): 1 and -1, mean 0. Verdicts
    after (-1, 1, 1) and (-1, 1, -1): each alone."""
    found = advantages(built(STEP))
    assert found == pytest.approx(
        {
            "p/1": 1.5,
            "p/2": -0.5,
            "q/1": -0.5,
            "q/2": -0.5,
            "p/1/1": 0.0,
            "p/2/1": 2 / 3,
            "q/1/1": 2 / 3,
            "q/2/1": -4 / 3,
            "p/2/1/1": 1.0,
            "q/1/1/1": -1.0,
            "p/2/1/1/1": 0.0,
            "q/1/1/1/1": 0.0,
        }
    )


def test_each_trajectory_counts_the_same_and_so_does_each_of_its_turns() -> None:
    """4 trajectories; q/1 has 4 turns, p/1 two: a turn of 5 tokens weighs 1 / 4 / 4 / 5 a token."""
    long_one = trajectory("q/1", [0, 1, 0, 0], [2, 5, 1, 3])
    batch = built([*STEP[:6], *long_one, *STEP[-2:]])
    rows = {row.completion_id: row.token_weights.tolist() for row in batch.all_rows}
    assert rows["q/1/1"] == pytest.approx([1 / 4 / 4 / 5] * 5)
    assert rows["p/1"] == pytest.approx([1 / 4 / 2]) == rows["p/1/1"]
    assert sum(map(sum, rows.values())) == pytest.approx(1.0)
    assert batch.metrics["s2r/turns_mean"] == (12.0, 4.0)


def test_of_outcomes_the_problem_s_other_trajectories_are_the_baseline() -> None:
    """Last answers of p: 1 and 1; of q: -1 and -1. With q/1 ending right: 1 - (-1) and -1 - 1, on
    every turn."""
    assert set(advantages(built(STEP, level="outcome")).values()) == {0.0}
    found = advantages(
        built([*STEP[:6], *trajectory("q/1", [0, 0, 1]), *STEP[-2:]], level="outcome")
    )
    assert [found[f"q/1{rest}"] for rest in ("", "/1", "/1/1")] == [2.0] * 3
    assert found["q/2"] == found["q/2/1"] == -2.0 and found["p/1"] == found["p/2/1"] == 0.0


def test_of_outcomes_each_token_of_a_trajectory_counts_the_same() -> None:
    """2 trajectories of 11 and 2 tokens: 1 / 2 / 11 and 1 / 2 / 2."""
    made = [*trajectory("q/1", [0, 1, 0, 0], [2, 5, 1, 3]), *trajectory("q/2", [1, 1])]
    batch = built(made, level="outcome")
    for row in batch.all_rows:
        count = 11 if row.completion_id.startswith("q/1") else 2
        assert row.token_weights.tolist() == pytest.approx([1 / 2 / count] * len(row.token_ids))


def test_a_trajectory_whose_last_check_failed_is_no_baseline_and_does_not_train() -> None:
    cut = trajectory("q/1", [0, 1, 0])
    made = [*cut[:2], with_status(cut[2], "timeout"), *trajectory("q/2", [1, 1])]
    found = advantages(built([*made, *trajectory("q/3", [0, 0])], level="outcome"))
    assert found["q/2"] == 2.0 and found["q/3"] == -2.0
    assert found["q/1"] == found["q/1/1"] == 0.0


@pytest.mark.parametrize(
    ("level", "expected"),
    [("process", {"p/1": 1.5 - 0.2, "p/1/1": -0.2}), ("outcome", {"p/1": -0.4, "p/1/1": -0.4})],
)
def test_what_is_taken_off_rewards_is_taken_off_advantages_and_not_off_the_baseline(
    level: str, expected: dict[str, float]
) -> None:
    """The KL term of the paper: 0.2 off each turn of p/1, or their sum off its trajectory."""

    class Taken(LearnerPlugin):
        def shape_rewards(self, batch: Any, rewards: Any) -> Any:
            is_p1 = [one.completion_id.startswith("p/1") for one in batch.completions]
            return rewards - 0.2 * batch.rows([float(here) for here in is_p1])

    every = frozenset({1, 2, 3, 4})
    parts = [Taken(LearnerPlugin.Settings(), every), plugin("s2r", *every, level=level)]
    found = advantages(build_batch(STEP, CHAIN, ObjectiveConfig(), plugins=parts))
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["p/2"] == (-0.5 if level == "process" else 0.0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("layers.solve.advantage=group_z", "whole trajectories"),
        ("layers.correct.group_size=2", "do not branch"),
        ("layers.verify.aggregation=token_mean", "weighs turns as a whole"),
        ("layers.correct.denominator=retained", "counts every turn"),
        ("objective.update_order=sequential", "turns of one layer"),
    ],
)
def test_what_it_cannot_work_with_is_refused(override: str, message: str) -> None:
    config = load_recipe("methods/s2r", [override])
    with pytest.raises(ConfigError, match=message):
        load_plugins(config.method_view, Plugin)
