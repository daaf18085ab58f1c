"""The loss of rows in float64, cut into micro-batches at will."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from learner.objective import microbatch_loss
from learner.packing import Microbatch, collate
from learner.plugin import LearnerPlugin
from learner.rows import TrainingRow
from mgrpo.config import ObjectiveConfig

UNCORRECTED = {"importance": "none"}


def floats(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def exact_microbatch(rows: Sequence[TrainingRow]) -> Microbatch:
    """Like `collate`, without rounding to float32."""

    def flat(columns: Sequence[Sequence[float]]) -> Tensor:
        return floats(*(value for column in columns for value in column))

    plain = collate(rows, merge_prefixes=False)
    return dataclasses.replace(
        plain,
        rollout_logprobs=flat([row.rollout_logprobs.tolist() for row in rows]),
        advantages=flat([row.advantages.tolist() for row in rows]),
        token_weights=flat([row.token_weights.tolist() for row in rows]),
        kl_weights=flat([[row.kl_weight] * len(row.token_ids) for row in rows]),
        entropy_weights=None
        if plain.entropy_weights is None
        else flat(
            [
                [0.0] * len(row.token_ids) if row.entropy_weights is None else row.entropy_weights
                for row in rows
            ]
        ),
        columns={
            name: flat([row.columns.get(name, [0.0] * len(row.token_ids)) for row in rows])
            for name in plain.columns
        },
    )


def exact_loss(
    rows: Sequence[TrainingRow],
    logprobs: Tensor,
    old: Tensor,
    *,
    plugins: Sequence[LearnerPlugin] = (),
    objective: ObjectiveConfig | None = None,
    ref: Tensor | None = None,
    entropies: Tensor | None = None,
    cuts: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """The step's loss, with gradient by the [M] log-probabilities of all rows' tokens.

    Args:
        cuts: the rows of every micro-batch; one with all of them unless given.
    """
    objective = objective or ObjectiveConfig(**UNCORRECTED)
    entropies = torch.zeros_like(old) if entropies is None else entropies
    lengths = [len(row.token_ids) for row in rows]
    parts = [column.split(lengths) for column in (logprobs, old, entropies)]
    refs = None if ref is None else ref.split(lengths)
    total = torch.zeros((), dtype=torch.float64)
    for cut in cuts or [range(len(rows))]:
        of_cut = [torch.cat([part[index] for index in cut]) for part in parts]
        total = total + microbatch_loss(
            exact_microbatch([rows[index] for index in cut]),
            of_cut[0],
            of_cut[1],
            None if refs is None else torch.cat([refs[index] for index in cut]),
            of_cut[2],
            objective,
            plugins,
        )
    return total
