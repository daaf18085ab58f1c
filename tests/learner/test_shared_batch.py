"""Ranks that hold their own tokens alone decide what one rank decides that holds all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.batch import TrainingBatch, build_batch, refreshed, step_batch
from learner.columns import StepBatch
from learner.plugin import LearnerPlugin
from learner.rows import TrainingRow
from mgrpo.config import ObjectiveConfig
from mgrpo.config.base import StrictConfig
from mgrpo.errors import LearnerError
from mgrpo.types import Completion, Selection
from tests.learner.builders import layer, long, plugin, random_completions, solve_layer
from tests.learner.exact import floats
from tests.learner.meeting import Add, on_ranks

CHAIN = [solve_layer(), layer()]


def step() -> list[Completion]:
    spans = {"analysis": [(0, 1)]}
    return [
        dataclasses.replace(
            one, spans=spans, sampled_mask=[n != 1 for n in range(len(one.token_ids))]
        )
        for one in random_completions(5)
    ]


def built(plugins: list[LearnerPlugin], **ranks: Any) -> TrainingBatch:
    completions = step()
    tokens = [token for one in completions for token in one.token_ids.tolist()]
    values = torch.tensor(tokens, dtype=torch.float64) / 64
    return build_batch(
        completions,
        CHAIN,
        ObjectiveConfig(),
        plugins=plugins,
        measurements={"policy_logprobs": -0.5 - 2 * values, "entropies": 0.5 + values},
        **ranks,
    )


def built_on_ranks(make: Callable[[], list[LearnerPlugin]], num_ranks: int) -> list[TrainingBatch]:
    def build(rank: int, add: Add) -> TrainingBatch:
        return built(make(), rank=rank, num_ranks=num_ranks, add_over_ranks=add)

    return on_ranks(build, num_ranks)


class RowMeans(LearnerPlugin):
    """Asks for other ranks' tokens by sums, before and after rows are shared out."""

    def shape_rewards(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        return rewards + batch.row_means(batch.measurements["entropies"])

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        sampled = batch.is_sampled
        of_group = batch.group_means(batch.row_means(batch.rollout_logprobs, sampled))
        batch.metrics["own/sampled"] = (batch.total(sampled), batch.total(torch.ones_like(sampled)))
        return advantages * batch.spread(of_group + batch.row_sums(sampled.double()))


MAKERS: dict[str, Callable[[], list[LearnerPlugin]]] = {
    "none": list,
    "collectives": lambda: [RowMeans(StrictConfig(), frozenset({1, 2}))],
    "clip_cov": lambda: [plugin("clip_cov", share=0.2, lowest=-1.0, highest=2.0)],
    "entropy_bonus": lambda: [plugin("entropy_bonus", coefficient=0.1)],
    "entropy_target": lambda: [plugin("entropy_bonus", target=2.0, gain=0.1)],
    "tis": lambda: [plugin("mismatch_correction", normalise=True, reject_k3=10.0)],
    "tis_sequence": lambda: [plugin("mismatch_correction", normalise=True, level="sequence")],
}


@pytest.mark.parametrize("num_ranks", [2, 7])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_ranks_decide_alike_and_their_rows_are_those_of_one_rank(
    make: Callable[[], list[LearnerPlugin]], num_ranks: int
) -> None:
    whole = built(make())
    parts = built_on_ranks(make, num_ranks)
    for part in parts:
        agree(part.selections, whole.selections)
        assert part.metrics.keys() == whole.metrics.keys()
        assert all(
            part.metrics[name] == pytest.approx(whole.metrics[name]) for name in part.metrics
        )
    own = [row for part in parts for row in part.rows]
    rows = {row.completion_id: row for row in own}
    assert len(own) == len(rows) == len(whole.rows) > 0
    for row in whole.rows:
        found = rows[row.completion_id]
        # A sum over ranks is rounded elsewhere than a sum over all tokens.
        changed = {}
        for name in ("advantages", "token_weights", "entropy_weights"):
            if getattr(row, name) is not None:
                np.testing.assert_allclose(getattr(found, name), getattr(row, name), rtol=1e-12)
                changed[name] = getattr(row, name)
        assert dataclasses.replace(found, **changed) == row


def agree(some: list[Selection], others: list[Selection]) -> None:
    for one, other in zip(some, others, strict=True):
        assert one.advantage == pytest.approx(other.advantage, rel=1e-12)
        assert dataclasses.replace(one, advantage=other.advantage) == other


def test_a_tree_is_on_one_rank() -> None:
    homes: dict[str, set[int]] = {}
    for rank, part in enumerate(built_on_ranks(list, 3)):
        for row in part.rows:
            problem = row.completion_id.split("/")[0]
            homes.setdefault(problem, set()).add(rank)
    assert np.mean([len(ranks) == 1 for ranks in homes.values()]) >= 0.6


# --- columns of further optimizer steps ---


def pairs() -> list[Completion]:
    """Both sides of three pairs, whose trees two ranks share."""
    sides = [one for one in random_completions(3) if one.completion_id.endswith(("/1", "/2"))]
    return [
        dataclasses.replace(
            one, metadata={"pair": {"kind": "penalty", "role": role, "ref_logprob": -3.0}}
        )
        for one, role in zip([one for one in sides if one.layer == 1], [1, -1] * 3, strict=True)
    ]


REFRESHING: dict[str, tuple[Callable[[], LearnerPlugin], list[Completion]]] = {
    "kl_cov": (lambda: plugin("kl_cov", share=0.3), step()),
    "disco": (lambda: plugin("disco"), step()),
    "disco_ratio": (lambda: plugin("disco", score="ratio"), step()),
    "dpo": (lambda: plugin("dpo"), pairs()),
}


@pytest.mark.parametrize("use", REFRESHING)
def test_columns_are_computed_again_over_all_ranks(use: str) -> None:
    make, completions = REFRESHING[use]
    table = -3 * torch.rand(64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def columns(num_ranks: int) -> dict[str, dict[str, Any]]:
        def refresh(rank: int, add: Add) -> list[TrainingRow]:
            part = make()
            measurements = {
                "policy_logprobs": torch.cat([table[one.token_ids] for one in completions]),
                "dpo/log_ratios": torch.zeros(len(completions), dtype=torch.float64),
            }
            batch = build_batch(
                completions,
                CHAIN,
                ObjectiveConfig(minibatches=2),
                plugins=[part],
                measurements=measurements,
                rank=rank,
                num_ranks=num_ranks,
                add_over_ranks=add,
            )
            rows: list[TrainingRow] = []
            for one in batch.minibatches:
                tokens = [token for row in one.rows for token in row.token_ids.tolist()]
                rows += refreshed(one, [part], 0.5 * table[tokens], table[tokens])
            return rows

        rows = [row for own in on_ranks(refresh, num_ranks) for row in own]
        return {row.completion_id: dict(row.columns) for row in rows}

    whole = columns(1)
    assert len({tuple(column) for own in whole.values() for column in own.values()}) > 2
    for num_ranks in (2, 5):
        found = columns(num_ranks)
        assert found.keys() == whole.keys()
        for name, own in whole.items():
            for column, values in own.items():
                np.testing.assert_allclose(found[name][column], values, rtol=1e-12)


# --- collectives ---

THREE = [long("p/1", 1.0, 2), long("q/1", 0.0, 1), long("q/2", 1.0, 3)]
COLUMN = floats(1, 2, 4, 8, 16, 32)
HELD: list[list[int]] = [[1], [0, 2], []]


def three(rank: int, add: Add) -> StepBatch:
    """Tokens 4 on rank 0, 1, 2, 8, 16 and 32 on rank 1, none on rank 2; column is a measurement."""
    batch = StepBatch(
        completions=THREE,
        parents={},
        groups=["p", "q", "q"],
        step=0,
        token_measurements=frozenset({"column"}),
        held_places=HELD[rank],
        add_over_ranks=add,
    )
    batch.measurements = {"column": batch.own_tokens(COLUMN), "rows": floats(5, 6, 7)}
    return batch


def test_every_rank_gets_the_same_from_a_collective() -> None:
    def ask(rank: int, add: Add) -> list[Any]:
        batch = three(rank, add)
        own = batch.measurements["column"]
        return [
            batch.total(own),
            batch.row_sums(own).tolist(),
            batch.row_means(own, own != 8).tolist(),
            batch.gather_tokens(own).tolist(),
            batch.gather_tokens(own > 4).tolist(),
            batch.gather_rows(floats(10, 20)[: len(batch.held)]).tolist(),
            batch.sum_over_ranks(floats(rank)).tolist(),
        ]

    assert (
        on_ranks(ask, 3)
        == [
            [
                63.0,
                [3.0, 4.0, 56.0],
                [1.5, 4.0, 24.0],
                COLUMN.tolist(),
                [False, False, False, True, True, True],
                [10.0, 10.0, 20.0],
                [3.0],
            ]
        ]
        * 3
    )


def test_signals_of_tokens_move_with_their_completions() -> None:
    moved_to: list[list[int]] = [[], [1, 2], [0]]

    def move(rank: int, add: Add) -> tuple[list[float], list[float]]:
        batch = three(rank, add).moved(moved_to[rank])
        assert batch.held == moved_to[rank] and batch.measurements["rows"].tolist() == [5, 6, 7]
        assert "column" not in batch.part(batch.held).measurements
        return batch.measurements["column"].tolist(), batch.spread(floats(1, 2, 3)).tolist()

    assert on_ranks(move, 3) == [([], []), ([4, 8, 16, 32], [2, 3, 3, 3]), ([1, 2], [1, 1])]


# --- what a plug-in gets wrong ---


class Forgets(LearnerPlugin):
    """Takes its tokens for those of the whole step."""

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        return batch.gather_tokens(advantages)


class Unnamed(LearnerPlugin):
    def measure(self, batch: StepBatch) -> dict[str, Any]:
        return {"own/gaps": torch.zeros(batch.num_tokens)}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Forgets, r"Forgets.transform_advantages returned \d+ values for the \d+ tokens"),
        (Unnamed, "name it in token_measurements"),
    ],
)
def test_columns_of_other_lengths_are_refused(kind: type[LearnerPlugin], message: str) -> None:
    with pytest.raises(LearnerError, match=message):
        built_on_ranks(lambda: [kind(StrictConfig(), frozenset({1, 2}))], 2)


def test_what_is_read_is_shared_out_by_trees_and_tokens() -> None:
    completions = random_completions(6)
    held = [step_batch(completions, CHAIN, rank=rank, num_ranks=2).held for rank in range(2)]
    assert sorted(place for own in held for place in own) == list(range(len(completions)))
    loads = [sum(len(completions[place].token_ids) for place in own) for own in held]
    assert max(loads) < 1.5 * min(loads)
