"""Ranks that hold their own tokens alone decide what one rank decides that holds all of them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.batch import TrainingBatch, build_batch, looks_at_all_tokens
from learner.columns import StepBatch
from learner.plugin import LearnerPlugin
from mgrpo.config import ObjectiveConfig
from mgrpo.config.base import StrictConfig
from mgrpo.types import Selection
from tests.learner.builders import layer, plugin, random_completions, solve_layer

DEADLINE_S = 30


class Meeting:
    """Adds tensors up over threads that stand for ranks."""

    def __init__(self, num_ranks: int) -> None:
        self.barrier = threading.Barrier(num_ranks, timeout=DEADLINE_S)
        self.given: list[Tensor] = []
        self.lock = threading.Lock()

    def add(self, values: Tensor) -> Tensor:
        with self.lock:
            self.given.append(values.clone())
        self.barrier.wait()
        total = torch.stack(self.given).sum(0)
        if self.barrier.wait() == 0:
            self.given = []
        self.barrier.wait()
        return values.copy_(total)


def built(
    plugins: list[LearnerPlugin], *, rank: int = 0, num_ranks: int = 1, add: Any = None
) -> TrainingBatch:
    spans = {"analysis": [(0, 1)]}
    completions = [
        dataclasses.replace(
            one, spans=spans, sampled_mask=[n != 1 for n in range(len(one.token_ids))]
        )
        for one in random_completions(5)
    ]
    return build_batch(
        completions,
        [solve_layer(), layer()],
        ObjectiveConfig(),
        plugins=plugins,
        rank=rank,
        num_ranks=num_ranks,
        add_over_ranks=add,
    )


def on_ranks(make: Callable[[], list[LearnerPlugin]], num_ranks: int) -> list[TrainingBatch]:
    meeting = Meeting(num_ranks)
    with ThreadPoolExecutor(num_ranks) as threads:
        calls = [
            threads.submit(built, make(), rank=rank, num_ranks=num_ranks, add=meeting.add)
            for rank in range(num_ranks)
        ]
        return [call.result(timeout=DEADLINE_S) for call in calls]


class RowMeans(LearnerPlugin):
    """Asks for other ranks' tokens by every collective there is."""

    needs_all_tokens = False

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        sampled = batch.is_sampled
        of_group = batch.group_means(batch.row_means(batch.rollout_logprobs, sampled))
        batch.metrics["own/sampled"] = (batch.total(sampled), batch.total(torch.ones_like(sampled)))
        return advantages * batch.spread(of_group + batch.row_sums(sampled.double()))


MAKERS: dict[str, Callable[[], list[LearnerPlugin]]] = {
    "none": list,
    "collectives": lambda: [RowMeans(StrictConfig(), frozenset({1, 2}))],
    **{
        use: lambda use=use: [plugin(use)]  # type: ignore[misc]
        for use in (
            *("agro", "dagrpo", "gpg", "lambda_grpo", "lead", "reinforce_plus_plus", "rloo"),
            "span_credit",
        )
    },
    "supervised_injections": lambda: [plugin("supervised_injections")],
    "entropy_bonus": lambda: [plugin("entropy_bonus", coefficient=0.1)],
}


@pytest.mark.parametrize("num_ranks", [2, 3, 7])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_ranks_decide_alike_and_their_rows_are_those_of_one_rank(
    make: Callable[[], list[LearnerPlugin]], num_ranks: int
) -> None:
    assert not any(map(looks_at_all_tokens, make()))
    whole = built(make())
    parts = on_ranks(make, num_ranks)
    for part in parts:
        agree(part.selections, whole.selections)
        assert part.metrics.keys() == whole.metrics.keys()
        assert all(
            part.metrics[name] == pytest.approx(whole.metrics[name]) for name in part.metrics
        )
    own = [row for part in parts for row in part.mine]
    rows = {row.completion_id: row for row in own}
    assert len(own) == len(rows) == len(whole.rows) > 0
    for row in whole.rows:
        found = rows[row.completion_id]
        # A sum over ranks is rounded elsewhere than a sum over all tokens.
        np.testing.assert_allclose(found.advantages, row.advantages, rtol=1e-12)
        assert dataclasses.replace(found, advantages=row.advantages) == row


def agree(some: list[Selection], others: list[Selection]) -> None:
    for one, other in zip(some, others, strict=True):
        assert one.advantage == pytest.approx(other.advantage, rel=1e-12)
        assert dataclasses.replace(one, advantage=other.advantage) == other


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_a_plug_in_that_looks_at_all_tokens_has_them_on_every_rank(num_ranks: int) -> None:
    def make() -> list[LearnerPlugin]:
        return [plugin("desel", anchor="max_likelihood")]

    assert all(map(looks_at_all_tokens, make()))
    whole = built(make())
    parts = on_ranks(make, num_ranks)
    assert all(part.rows == whole.rows and part.selections == whole.selections for part in parts)
    own = sorted(row.completion_id for part in parts for row in part.mine)
    assert own == sorted(row.completion_id for row in whole.rows)


def test_tokens_that_are_not_shared_out_yet_are_refused_and_not_taken_for_none() -> None:
    class TooEarly(RowMeans):
        def shape_rewards(self, batch: StepBatch, rewards: Tensor) -> Tensor:
            return rewards + batch.row_sums(batch.rollout_logprobs)

    with pytest.raises(AssertionError, match="needs_all_tokens"):
        on_ranks(lambda: [TooEarly(StrictConfig(), frozenset({1, 2}))], 2)


def test_a_tree_is_on_one_rank() -> None:
    homes: dict[str, set[int]] = {}
    for rank, part in enumerate(on_ranks(list, 3)):
        for row in part.mine:
            problem = row.completion_id.split("/")[0]
            homes.setdefault(problem, set()).add(rank)
    assert np.mean([len(ranks) == 1 for ranks in homes.values()]) >= 0.6
