"""Steps on rollouts and steps on pairs of them, in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mgrpo.config import RunConfig
from mgrpo.metric_sums import MetricSums
from mgrpo.types import Completion
from tests.mgrpo.methods.veripo.test_preference_cycle import config_of
from tests.mgrpo.training.test_step_orders import WritesDown, take_step


class PairsToo(WritesDown):
    """Also measures log-probabilities, and notes it."""

    def __init__(self, config: RunConfig, script: Any) -> None:
        super().__init__(config, script)
        self.trained: list[list[str]] = []

    def sequence_logprobs(self, step: int, completions: Sequence[Completion]) -> list[float]:
        self.calls.append(f"measure {len(completions)}")
        return [-float(step)] * len(completions)

    def update(
        self, step: int, completions: Sequence[Completion], sums: MetricSums, **given: Any
    ) -> list[Completion]:
        self.trained.append([one.completion_id for one in completions])
        return super().update(step, completions, sums, **given)


def test_steps_on_rollouts_and_on_pairs_take_turns(tree):
    config = config_of(tree, pairs_per_step=3)
    run = PairsToo(config, lambda prompt, index: str(index))  # one of 4 is right, of 2 problems
    means = []
    for step in range(8):
        sums = MetricSums()
        take_step(run, step, sums)
        means.append(sums.means())
    on_rollouts, on_pairs = ["sample 1", "train 1", "broadcast"], ["train 1", "broadcast"]
    turn = [*on_rollouts, *on_rollouts, "measure 8", *on_pairs, *on_pairs]
    assert run.calls == turn * 2
    assert [one.get("pairs/trained") for one in means] == [None, None, 3, 1] * 2
    assert [one.get("pairs/waiting") for one in means] == [2, 4, None, None] * 2
    assert means[0]["pairs/made_penalty"] == 2
    assert run.trained[2] == [f"s2p{slot}#{side}" for slot in range(3) for side in (0, 1)]


def test_a_phase_whose_pairs_are_used_up_leaves_the_policy_alone(tree):
    run = PairsToo(config_of(tree), lambda prompt, index: "wrong")
    for step in range(4):
        take_step(run, step)
    assert run.calls == ["sample 1", "train 1", "broadcast"] * 2
    assert run.policy_version == 2


def test_problems_that_are_always_solved_are_excluded_when_pairs_begin(tree):
    config = config_of(tree, drop_solved_fraction=1.0, min_problems=0)
    run = PairsToo(config, lambda prompt, index: str(index))
    source: Any = run.source.sources[-1]
    take_step(run, 0)
    source.cycle.solved = {"p0", "p1", "p2"}
    assert source.fresh.excluded == set()
    take_step(run, 2)
    assert len(source.fresh.excluded) == 2  # of 4 problems; a step's worth always stays
    again: Any = PairsToo(config, run.script).source
    again.load_state_dict(run.source.state_dict())
    assert again.sources[0].excluded == source.fresh.excluded
