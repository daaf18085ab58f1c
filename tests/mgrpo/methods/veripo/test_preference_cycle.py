"""Rollouts and pairs in turn: what is kept, fixed, trained on, dropped and resumed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mgrpo.config import RunConfig
from mgrpo.config.sources import stacked
from mgrpo.methods.veripo.preference_cycle import PreferenceCycle
from mgrpo.methods.veripo.settings import PreferenceSettings
from mgrpo.types import STORED_PAIR, Completion
from tests.learner.builders import completion

PAIRS = {"source": {"train_on": "pairs"}}


def config_of(tree: dict[str, Any], **preferences: Any) -> RunConfig:
    """Two steps on rollouts, two on pairs, and so on."""
    phase = {"name": "pairs", "from_step": 2, "num_steps": 2, "every_steps": 4, "changes": PAIRS}
    return RunConfig.model_validate(
        {
            **tree,
            "steps": 8,
            "layers": [{**tree["layers"][0], "group_size": 4}],
            "plugins": [{"use": "dpo"}],
            "phases": [phase],
            "source": {
                "type": "preferences",
                "kinds": ["penalty"],
                "verifier": {"consistency": "off"},
                **preferences,
            },
        }
    )


def group(problem: str, *rewards: float) -> list[Completion]:
    return [completion(f"{problem}/{n}", reward) for n, reward in enumerate(rewards, start=1)]


def cycle_of(tree: dict[str, Any], **preferences: Any) -> PreferenceCycle:
    config = config_of(tree, **preferences)
    settings = PreferenceSettings.model_validate(stacked(config.source)[0].settings)
    return PreferenceCycle(settings, seed=config.seed, prompts_per_step=config.prompts_per_step)


def numbered(completions: list[Completion]) -> list[float]:
    """A log-probability that tells which completion it is of."""
    return [-float(one.completion_id[1:].replace("/", "")) for one in completions]


def begun(cycle: PreferenceCycle, num_problems: int = 100) -> PreferenceCycle:
    cycle.begin(numbered, num_problems)
    return cycle


def test_a_steps_groups_leave_their_pairs(tree):
    cycle = cycle_of(tree)
    counts = cycle.add([*group("q1", 1, 0, 0, 1), *group("q2", 0, 0), *group("q3", 0, 1)])
    assert counts == {"penalty": 2, "consistency": 0, "reflection": 0}
    assert [pair.chosen.problem_id for pair in cycle.waiting] == ["q1", "q3"]


def test_groups_of_other_prompts_and_layers_are_never_mixed(tree):
    cycle = cycle_of(tree)
    one, other = group("q1", 1, 0)
    moved = [completion("q1/1/1", 1.0, group_key="q1"), completion("q1/2/1", 0.0, group_key="q1")]
    assert cycle.add([one])["penalty"] == cycle.add([other])["penalty"] == 0
    assert cycle.add([one, moved[1]])["penalty"] == 0
    assert cycle.add(moved)["penalty"] == 1  # of one prompt and layer


def test_only_so_many_pairs_are_held_and_the_oldest_leave(tree):
    cycle = cycle_of(tree, capacity=2)
    cycle.add([one for n in (1, 2, 3) for one in group(f"q{n}", 1, 0)])
    assert [pair.chosen.problem_id for pair in cycle.waiting] == ["q2", "q3"]


def test_both_sides_of_a_pair_come_with_the_reference_of_when_the_phase_began(tree):
    cycle = cycle_of(tree)
    cycle.add([*group("q1", 1, 0), *group("q2", 0, 1)])
    rows = begun(cycle).take(5)
    assert [one.completion_id for one in rows] == [*("s5p0#0", "s5p0#1", "s5p1#0", "s5p1#1")]
    assert [one.group_key for one in rows] == ["s5p0", "s5p0", "s5p1", "s5p1"]
    by_problem = {
        (one.problem_id, one.metadata["pair"]["role"]): one.metadata["pair"]["ref_logprob"]
        for one in rows
    }
    assert by_problem == {("q1", 1): -11, ("q1", -1): -12, ("q2", 1): -22, ("q2", -1): -21}
    assert {one.augmented_by for one in rows} == {STORED_PAIR}
    assert all(one.is_correct == (one.metadata["pair"]["role"] == 1) for one in rows)
    assert all(one.parent_id is None for one in rows)


@pytest.mark.parametrize(("when", "taken"), [("skip", [2, 2, 1, 0]), ("repeat", [2, 2, 2, 2])])
def test_pairs_train_once_or_go_round(tree, when, taken):
    cycle = cycle_of(tree, pairs_per_step=2, when_exhausted=when)
    cycle.add([one for n in range(1, 6) for one in group(f"q{n}", 1, 0)])
    begun(cycle)
    steps = [cycle.take(step) for step in range(4)]
    assert [len(rows) // 2 for rows in steps] == taken
    problems = [one.problem_id for rows in steps for one in rows[::2]]
    assert sorted(problems[:5]) == ["q1", "q2", "q3", "q4", "q5"]
    assert problems[5:] == problems[: len(problems) - 5]


@pytest.mark.parametrize("when", ["skip", "repeat"])
def test_a_step_takes_no_pair_twice(tree, when):
    cycle = cycle_of(tree, pairs_per_step=9, when_exhausted=when)
    cycle.add([*group("q1", 1, 0), *group("q2", 1, 0)])
    assert len(begun(cycle).take(0)) == 4


def test_a_phase_without_pairs_trains_nothing(tree):
    cycle = begun(cycle_of(tree, when_exhausted="repeat"))
    assert cycle.take(0) == []


# --- problems that are solved ---


def test_a_share_of_the_solved_problems_is_dropped_when_pairs_begin(tree):
    cycle = cycle_of(tree, drop_solved_fraction=0.8)
    cycle.add([one for n in range(10) for one in group(f"q{n}", 1, 1)] + group("q90", 1, 0))
    assert cycle.dropped == set()
    begun(cycle)
    assert len(cycle.dropped) == 8 and "q90" not in cycle.dropped


def test_the_last_look_at_a_problem_says_whether_it_is_solved(tree):
    cycle = cycle_of(tree, drop_solved_fraction=1.0)
    cycle.add([*group("q1", 1, 1), *group("q2", 1, 0)])
    cycle.add([*group("q1", 1, 0), *group("q2", 1, 1)])
    assert begun(cycle).dropped == {"q2"}


def test_a_steps_worth_of_problems_is_never_dropped(tree):
    cycle = cycle_of(tree, drop_solved_fraction=1.0, min_problems=5)
    cycle.add([one for n in range(10) for one in group(f"q{n}", 1, 1)])
    assert len(begun(cycle, num_problems=12).dropped) == 7


# --- resuming ---


def test_a_restored_cycle_goes_on_with_the_same_pairs(tree):
    cycle = cycle_of(tree, pairs_per_step=2)
    cycle.add([one for n in range(1, 6) for one in group(f"q{n}", 1, 0)] + group("q6", 1, 1))
    begun(cycle)
    cycle.take(2)
    state = json.loads(json.dumps(cycle.state_dict()))
    again = cycle_of(tree, pairs_per_step=2)
    again.load_state_dict(state)
    assert again.is_training_pairs and again.dropped == cycle.dropped
    assert again.take(3) == cycle.take(3)
    more = group("q7", 1, 0)
    assert again.add(more) == cycle.add(more)
    assert begun(again).take(9) == begun(cycle).take(9)
