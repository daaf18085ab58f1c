"""SPOC: turns compared across a problem's trajectories, and RAFT on the best of them, by hand."""

from __future__ import annotations

import pytest

from learner.batch import TrainingBatch, build_batch
from learner.plugin import LearnerPlugin
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError
from mgrpo.plugin import Plugin, load_plugins
from mgrpo.types import Completion
from tests.learner.builders import with_status
from tests.learner.trajectory_cases import trajectory

RAFT = [
    "plugins=[{use: best_trajectory}]",
    *(f"layers.{number}.advantage=raw_reward" for number in range(4)),
    "objective.loss=reinforce",
]
STEP = [
    *trajectory("q/1", [0, 1, 1, 1]),
    *trajectory("q/2", [0, 1, 0, 0]),
    *trajectory("q/3", [1, 0, 1, 1]),
    *trajectory("q/4", [0, 0]),
    *trajectory("p/1", [0, 1, 0, 1]),
    *trajectory("p/2", [0, 0]),
]


def built(completions: list[Completion], *overrides: str) -> TrainingBatch:
    view = load_recipe("methods/spoc", list(overrides)).method_view
    plugins = load_plugins(view, LearnerPlugin)
    return build_batch(completions, view.layers, view.objective, plugins=plugins)


def test_a_turn_is_compared_with_the_same_turn_of_the_problem_s_trajectories() -> None:
    """Of q, first answers 0, 0, 1, 0: z-scores -0.5 and 1.5. Verdicts 1, 1, 0, 0: ±0.866025.
    Second answers 1, 0, 1 and verdicts 1, 0, 1 of three trajectories: 0.577350, -1.154701. Those of
    p/1 have no others."""
    found = {one.completion_id: one.advantage for one in built(STEP).selections}
    expected = {
        "q/1": [-0.5, 0.866025, 0.577350, 0.577350],
        "q/2": [-0.5, 0.866025, -1.154701, -1.154701],
        "q/3": [1.5, -0.866025, 0.577350, 0.577350],
        "q/4": [-0.5, -0.866025],
        "p/1": [0.0, 0.707107, 0.0, 0.0],
        "p/2": [0.0, -0.707107],
    }
    for first, values in expected.items():
        turns = [found[first + "/1" * number] for number in range(len(values))]
        assert turns == pytest.approx(values, abs=1e-5)


def test_of_the_best_trajectory_the_right_turns_train() -> None:
    """q/1 and q/3 end right: the first of them is imitated, without its wrong first answer. Of p
    no trajectory ends right, and the first one's two right verdicts train."""
    batch = built(STEP, *RAFT)
    chosen = {one.completion_id: one.advantage for one in batch.selections if one.selected}
    assert chosen == dict.fromkeys(["q/1/1", "q/1/1/1", "q/1/1/1/1", "p/1/1", "p/1/1/1/1"], 1.0)
    assert batch.metrics["best_trajectory/right_fraction"] == (1.0, 2.0)
    assert {row.completion_id for row in batch.rows} == set(chosen)


def test_a_trajectory_whose_last_check_failed_is_not_the_best() -> None:
    first = trajectory("q/1", [0, 1, 1])
    made = [*first[:2], with_status(first[2], "error"), *trajectory("q/2", [0, 1, 1])]
    batch = built(made, *RAFT)
    assert [one.completion_id for one in batch.selections if one.selected] == ["q/2/1", "q/2/1/1"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("layers.verify.group_size=2", "do not branch"),
        ("plugins.0.layers=[solve]", "whole trajectories"),
    ],
)
def test_what_raft_cannot_work_with_is_refused(override: str, message: str) -> None:
    config = load_recipe("methods/spoc", [*RAFT, override])
    with pytest.raises(ConfigError, match=message):
        load_plugins(config.method_view, Plugin)
