"""What each order samples and trains, in which order, told to a run that only writes it down."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from mgrpo.config import RunConfig
from mgrpo.metric_sums import MetricSums
from mgrpo.training import loop
from mgrpo.training.loop import Run
from mgrpo.training.sources.stack import make_sources
from mgrpo.training.step_orders import STEP_ORDERS
from mgrpo.types import Completion, Problem, Replayed
from tests.actors.plugins.scripted_rollout import rollout

PROBLEMS = [Problem(problem_id=f"p{n}", question=f"q{n}", answer=str(n)) for n in range(4)]


class WritesDown:
    """Stands for a run: samples from a script, and notes updates and broadcasts."""

    def __init__(self, config: RunConfig, script: Any = lambda prompt, index: str(index)) -> None:
        self.method, self.script = config.method_view, script
        self.source = make_sources(self.method, PROBLEMS)
        lowest: Any = self.source.sources[0]
        lowest.draw = lambda count: PROBLEMS[:count]
        self.policy_version = 0
        self.calls: list[str] = []
        self.parents_given: list[list[str]] = []

    def sample(
        self,
        step: int,
        problems: Sequence[Problem],
        sums: MetricSums,
        *,
        layers: range | None = None,
        attempts: Sequence[Completion] = (),
        slots: Sequence[int] | None = None,
    ) -> list[Completion]:
        layers = layers or range(1, len(self.method.layers) + 1)
        self.calls.append(f"sample {''.join(map(str, layers))}")
        parts = rollout(self.script, [], group_sizes=[2] * len(self.method.layers))
        parts.layers = self.method.layers
        return asyncio.run(
            parts.run(
                step,
                problems,
                first_layer=layers[0],
                last_layer=layers[-1],
                attempts=attempts,
                slots=slots,
            )
        )

    def update(
        self,
        step: int,
        completions: Sequence[Completion],
        sums: MetricSums,
        *,
        parents: Sequence[Completion] = (),
        replayed: Sequence[Replayed] = (),
    ) -> list[Completion]:
        layers = sorted({one.layer for one in completions})
        self.calls.append(f"train {''.join(map(str, layers))}")
        self.parents_given.append([one.completion_id for one in parents])
        self.policy_version += 1
        return list(completions)

    def streams(self, step: int) -> bool:
        return False

    def broadcast(self, sums: MetricSums) -> None:
        self.calls.append("broadcast")


def run_of(tree: dict[str, Any], order: str, **settings: Any) -> WritesDown:
    tree["objective"] = {"update_order": {"type": order, **settings}}
    return WritesDown(RunConfig.model_validate(tree))


def take_step(run: Any, step: int = 0, sums: MetricSums | None = None) -> list[Completion]:
    whole = Run(
        first_step=0,
        num_steps=1,
        source=run.source,
        workers=run,
        order=STEP_ORDERS[run.method.objective.update_order.type],
        hooks=[],
    )
    return loop.take_step(whole, step, sums or MetricSums())


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


@pytest.mark.parametrize("order", ["sequential", "alternate_steps"])
def test_a_step_with_nothing_to_correct_still_updates(tree, order: str):
    """So that the policy's version goes on as it does everywhere."""
    tree["layers"][1]["parents"] = "wrong_only"
    run = run_of(tree, order)
    run.script = lambda prompt, index: "0" if "q0" in prompt else "1"
    take_step(run, 1)
    assert run.calls[-2:] == ["train ", "broadcast"]
