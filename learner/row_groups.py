"""Which rows of a step are compared with each other, for plug-ins that work group by group."""

from __future__ import annotations

import torch
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import RowFilter


def usable_groups(batch: StepBatch, layers: frozenset[int]) -> list[list[int]]:
    """Places of the usable rows of every group of some layers; groups without any are left out."""
    groups: dict[int, list[int]] = {}
    here = (batch.in_layers(layers) & batch.is_usable).nonzero()[:, 0].tolist()
    for place in here:
        groups.setdefault(int(batch.group_ids[place]), []).append(place)
    return list(groups.values())


def pass_rates(batch: StepBatch) -> Tensor:
    """[N] share of right answers in each row's group, over its usable rows."""
    return batch.group_means(batch.is_correct.double())


def in_mixed_group(batch: StepBatch) -> Tensor:
    """[N] bool: the row's group has right and wrong answers, by the checks alone."""
    rates = pass_rates(batch)
    return (rates > 0) & (rates < 1)


def without_uniform_groups(batch: StepBatch) -> RowFilter:
    """Leaves out groups that are all right or all wrong, by the checks alone."""
    is_mixed = in_mixed_group(batch)
    return RowFilter(
        is_kept=is_mixed,
        is_trained=torch.ones_like(is_mixed),
        reason="its group is all right or all wrong",
    )
