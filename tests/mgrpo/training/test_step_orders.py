"""What each order samples and trains, in which order, told to a run that only writes it down."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mgrpo.config import RunConfig
from mgrpo.metric_sums import MetricSums
from mgrpo.training.sources.error_pool import ErrorPool
from mgrpo.training.step_orders import STEP_ORDERS
from mgrpo.types import Completion, Problem
from tests.actors.plugins.scripted_rollout import rollout

PROBLEMS = [Problem(problem_id=f"p{n}", question=f"q{n}", answer=str(n)) for n in range(4)]


class WritesDown:
    """Stands for a run: samples from a script, and notes updates and broadcasts."""

    def __init__(self, config: RunConfig, script: Any = lambda prompt, index: str(index)) -> None:
        self.config, self.script = config, script
        self.error_pool = ErrorPool(config.objective.error_pool)
        self.policy_version = 0
        self.calls: list[str] = []
        self.parents_given: list[list[str]] = []

    def take_problems(self) -> list[Problem]:
        return PROBLEMS[: self.config.prompts_per_step]

    def roll_out(
        self,
        step: int,
        problems: list[Problem],
        sums: MetricSums,
        *,
        layers: range | None = None,
        attempts: list[Completion] | None = None,
    ) -> list[Completion]:
        layers = layers or range(1, len(self.config.layers) + 1)
        self.calls.append(f"sample {''.join(map(str, layers))}")
        parts = rollout(self.script, [], group_sizes=[2] * len(self.config.layers))
        parts.layers = self.config.layers
        return asyncio.run(
            parts.run(
                step,
                problems,
                first_layer=layers[0],
                last_layer=layers[-1],
                attempts=attempts or [],
            )
        )

    def update(
        self,
        step: int,
        completions: list[Completion],
        sums: MetricSums,
        *,
        parents: list[Completion] | None = None,
    ) -> list[Completion]:
        layers = sorted({one.layer for one in completions})
        self.calls.append(f"train {''.join(map(str, layers))}")
        self.parents_given.append([one.completion_id for one in parents or []])
        self.policy_version += 1
        return completions

    def broadcast(self, sums: MetricSums) -> None:
        self.calls.append("broadcast")


def run_of(tree: dict[str, Any], order: str, **objective: Any) -> WritesDown:
    tree["objective"] = {"update_order": order, **objective}
    return WritesDown(RunConfig.model_validate(tree))


def take_step(run: Any, step: int = 0, sums: MetricSums | None = None) -> list[Completion]:
    return STEP_ORDERS[run.config.objective.update_order](run, step, sums or MetricSums())


def three_layers(tree: dict[str, Any]) -> None:
    tree["layers"].append({"name": "again", "group_size": 2, "max_completion_tokens": 50})


def by_layer(completions: list[Completion]) -> list[int]:
    return [sum(one.layer == layer for one in completions) for layer in (1, 2, 3)]


def test_joint_samples_all_layers_from_one_policy_and_trains_once(tree):
    run = run_of(tree, "joint")
    completions = take_step(run)
    assert run.calls == ["sample 12", "train 12", "broadcast"]
    assert by_layer(completions) == [8, 16, 0]


def test_sequential_samples_each_layer_from_what_the_one_before_left(tree):
    three_layers(tree)
    run = run_of(tree, "sequential")
    completions = take_step(run)
    assert run.calls == [
        *["sample 1", "train 1", "broadcast"],
        *["sample 2", "train 2", "broadcast"],
        *["sample 3", "train 3", "broadcast"],
    ]
    assert by_layer(completions) == [8, 16, 32]
    ids = {one.completion_id for one in completions}
    assert all(one.parent_id in ids for one in completions if one.layer > 1)
    assert [len(parents) for parents in run.parents_given] == [0, 8, 16]


def test_a_snapshot_samples_everything_before_any_update(tree):
    three_layers(tree)
    run = run_of(tree, "sequential", rollout_policy="snapshot")
    completions = take_step(run)
    assert run.calls == ["sample 123", "train 1", "train 2", "train 3", "broadcast"]
    assert by_layer(completions) == [8, 16, 32]
    assert [len(parents) for parents in run.parents_given] == [0, 8, 16]


def test_alternating_steps_train_one_layer_each_in_turn(tree):
    three_layers(tree)
    run = run_of(tree, "alternate_steps")
    completions = [take_step(run, step) for step in range(4)]
    assert run.calls == [
        *["sample 1", "train 1", "broadcast"],
        *["sample 12", "train 2", "broadcast"],
        *["sample 123", "train 3", "broadcast"],
        *["sample 1", "train 1", "broadcast"],
    ]
    assert [by_layer(one) for one in completions[:3]] == [[8, 0, 0], [8, 16, 0], [8, 16, 32]]
    assert [len(parents) for parents in run.parents_given] == [0, 8, 24, 0]


def pooled(tree: dict[str, Any], **pool: Any) -> WritesDown:
    """Of each problem's four attempts at step one is right: three errors, six a step."""
    tree["layers"][1]["select"] = "none"
    return run_of(tree, "pooled_errors", error_pool=pool)


def phases(run: WritesDown) -> list[str]:
    return [call for call in run.calls if call.startswith("train")]


def test_errors_are_pooled_until_the_pool_is_full_and_then_corrected(tree):
    run = pooled(tree, capacity=10)
    run.script = lambda prompt, index: f"{index}"  # p0: "0" is right, p1: "1"
    sizes, corrected = [], []
    for step in range(9):
        sums = MetricSums()
        completions = take_step(run, step, sums)
        means = sums.means()
        sizes.append(means["error_pool/size"])
        corrected.append(means["error_pool/is_correction_step"])
        assert bool(means["error_pool/is_correction_step"]) == (2 in {c.layer for c in completions})
    # Filled with 6 and 6 (10 fit), then 2 a step are corrected until fewer than 2 are left.
    assert sizes == [6, 10, 8, 6, 4, 2, 0, 6, 10]
    assert corrected == [0, 0, 1, 1, 1, 1, 1, 0, 0]
    assert phases(run) == ["train 1"] * 2 + ["train 2"] * 5 + ["train 1"] * 2


def test_corrections_of_pooled_errors_know_their_attempts(tree):
    run = pooled(tree, capacity=6)
    take_step(run, 0)
    completions = take_step(run, 1)
    assert by_layer(completions) == [2, 4, 0]
    assert run.parents_given[1] == ["s1p0#0", "s1p1#0"]
    assert {one.parent_id for one in completions if one.layer == 2} == {"s1p0#0", "s1p1#0"}
    for child in completions[2:]:
        assert child.problem_id == "p0"  # the oldest errors are of the first problem


def test_every_nth_step_corrects(tree):
    run = pooled(tree, switch="every_n_steps", every_steps=3)
    for step in range(6):
        take_step(run, step)
    assert phases(run) == ["train 1", "train 1", "train 2"] * 2


def test_errors_of_old_policies_are_never_corrected(tree):
    run = pooled(tree, switch="every_n_steps", every_steps=4, max_age=1)
    dropped = []
    for step in range(4):
        sums = MetricSums()
        take_step(run, step, sums)
        dropped.append(sums.means()["error_pool/dropped_stale"])
    # The scripted engine is always of version 0, and each step makes the policy one older.
    assert dropped == [0, 0, 12, 6]
    assert phases(run) == ["train 1"] * 4


@pytest.mark.parametrize("skip", [True, False])
def test_truncated_errors_are_pooled_only_where_they_are_corrected(tree, skip: bool):
    tree["layers"][0]["max_completion_tokens"] = 1  # every completion is cut before its end
    tree["layers"][1]["skip_truncated_parents"] = skip
    run = pooled(tree)
    take_step(run)
    assert len(run.error_pool) == (0 if skip else 6)


@pytest.mark.parametrize("tie_break", ["random_seeded", "first", "shortest", "highest_logprob"])
def test_any_choice_of_parents_works_on_pooled_errors(tree, tie_break: str):
    tree["layers"][1]["parents"] = {"type": "best", "tie_break": tie_break}
    run = pooled(tree, capacity=6)
    take_step(run, 0)
    assert by_layer(take_step(run, 1)) == [2, 4, 0]


@pytest.mark.parametrize("order", ["sequential", "alternate_steps"])
def test_a_step_with_nothing_to_correct_still_updates(tree, order: str):
    """So that the policy's version goes on as it does everywhere."""
    tree["layers"][1]["parents"] = "wrong_only"
    run = run_of(tree, order)
    run.script = lambda prompt, index: "0" if "q0" in prompt else "1"
    take_step(run, 1)
    assert run.calls[-2:] == ["train ", "broadcast"]
