"""Advantage estimators beside the group's z-score: pure functions of a step's rows.

N completions in groups. Rows outside `mask` get 0 and count for nothing. Numbers whose spread is
below ZERO_STD_TOLERANCE are equal, and equal numbers hold no information.
"""

from __future__ import annotations

import torch
from torch import Tensor

from learner.advantages import ZERO_STD_TOLERANCE


def group_sums(values: Tensor, group_ids: Tensor, mask: Tensor) -> Tensor:
    """[N] the sum of each row's group over the rows in `mask`."""
    size = int(group_ids.max()) + 1 if len(group_ids) else 0
    sums = torch.zeros(size, dtype=values.dtype)
    return sums.index_add(0, group_ids, torch.where(mask, values, 0.0))[group_ids]


def group_sizes(group_ids: Tensor, mask: Tensor) -> Tensor:
    """[N] float64: how many rows of each row's group are in `mask`."""
    return group_sums(torch.ones(len(group_ids), dtype=torch.float64), group_ids, mask)


def deviations(values: Tensor, group_ids: Tensor, mask: Tensor) -> Tensor:
    """[N] values minus their group's mean, rounding included."""
    sizes = group_sizes(group_ids, mask).clamp(min=1)
    return torch.where(mask, values - group_sums(values, group_ids, mask) / sizes, 0.0)


def has_variance(values: Tensor, group_ids: Tensor, mask: Tensor) -> Tensor:
    """[N] bool: the row's group holds values that differ."""
    squares = group_sums(deviations(values, group_ids, mask).square(), group_ids, mask)
    sizes = group_sizes(group_ids, mask).clamp(min=1)
    return mask & ((squares / sizes).sqrt() > ZERO_STD_TOLERANCE)


def centred(values: Tensor, group_ids: Tensor, mask: Tensor) -> Tensor:
    """[N] values minus their group's mean; exactly 0 in a group of equal values."""
    found = deviations(values, group_ids, mask)
    return torch.where(has_variance(values, group_ids, mask), found, 0.0)


def leave_one_out(rewards: Tensor, group_ids: Tensor, mask: Tensor) -> Tensor:
    """[N] each reward minus the mean of the others of its group (RLOO).

    A row without others gets 0.
    """
    sizes = group_sizes(group_ids, mask)
    return centred(rewards, group_ids, mask) * sizes / (sizes - 1).clamp(min=1)


def whitened(values: Tensor, mask: Tensor, *, epsilon: float = 1e-8) -> Tensor:
    """Mean 0 and variance 1 over the values in `mask`; 0 for those outside.

    Args:
        epsilon: added to the unbiased variance, inside the root.
    """
    counted = values[mask]
    if len(counted) < 2 or counted.std() <= ZERO_STD_TOLERANCE:
        return torch.zeros_like(values)
    found = (values - counted.mean()) / (counted.var() + epsilon).sqrt()
    return torch.where(mask, found, 0.0)


def rescued_share(rewards: Tensor, group_ids: Tensor, mask: Tensor) -> float:
    """N / (N - M) with M rows in groups whose rewards are equal (GPG's α); 0 where all are."""
    num_rows = int(mask.sum())
    num_informative = int(has_variance(rewards, group_ids, mask).sum())
    return num_rows / num_informative if num_informative else 0.0


def to_go(values: Tensor, row_of_token: Tensor) -> Tensor:
    """[M] each token's sum of its own and its completion's later values, without discount."""
    totals = torch.zeros(int(row_of_token.max()) + 1 if len(row_of_token) else 0).to(values)
    totals = totals.index_add(0, row_of_token, values)
    # Sums to the end of all rows, minus those of the rows that come after.
    before_rows = totals.cumsum(0)
    return before_rows[row_of_token] - values.cumsum(0) + values
