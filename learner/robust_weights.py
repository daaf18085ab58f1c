"""Weights of groups of problems that follow how badly the policy does on each.

A group here is a domain or a cluster of problems, never the completions of one prompt. Losses
are failure rates in [0, 1]: the value of a policy-gradient loss says nothing about difficulty.
"""

from __future__ import annotations

import torch
from torch import Tensor


def exponentiated_weights(
    weights: Tensor, losses: Tensor, is_present: Tensor, *, rate: float
) -> Tensor:
    """One ascent step on the simplex: q <- q * exp(rate * loss), normalised.

    Group DRO (https://arxiv.org/abs/1911.08731). In the authors' code an absent group counts as
    loss 0, so it shrinks whenever it is not drawn; here only present groups change, and they keep
    their total.

    Args:
        weights: [K], sum 1.
        losses: [K]; those of absent groups are not read.
        is_present: [K] bool.
    """
    if not is_present.any():
        return weights
    raised = weights * torch.exp(rate * torch.where(is_present, losses, 0.0))
    total = weights[is_present].sum()
    raised = raised * (total / raised[is_present].sum())
    return torch.where(is_present, raised, weights)


def worst_share_weights(
    frequencies: Tensor, losses: Tensor, *, share: float, floor: float
) -> Tensor:
    """[K] weights of the worst `share` of the data (conditional value at risk), greedily.

    Groups are taken worst first, each with frequency / share while the frequencies taken stay at
    or below `share`; the next one takes what is left of 1. Then every group gets at least `floor`
    times its frequency.

    Args:
        frequencies: [K], sum 1.
        losses: [K]; equal ones keep their order.
    """
    weights, taken = torch.zeros_like(frequencies), 0.0
    for place in losses.argsort(descending=True, stable=True).tolist():
        taken += float(frequencies[place])
        if taken <= share * (1 + 1e-12):  # sums of frequencies are rounded
            weights[place] = frequencies[place] / share
            continue
        weights[place] = 1 - weights.sum()
        break
    return floor * frequencies + (1 - floor) * weights


def row_weights(weights: Tensor, group_of_row: Tensor) -> Tensor:
    """[N] factors N * q_g / (N_g * sum of q over present groups); their mean is exactly 1.

    Args:
        weights: [K] of all groups.
        group_of_row: [N] int64.
    """
    counts = torch.bincount(group_of_row, minlength=len(weights)).to(weights.dtype)
    total = weights[counts > 0].sum()
    per_group = len(group_of_row) * weights / (counts.clamp(min=1) * total)
    return per_group[group_of_row]


def soft_group_losses(memberships: Tensor, losses: Tensor) -> Tensor:
    """[K] losses of soft groups, from [B, K] memberships and [B] losses of prompts."""
    return (memberships * losses[:, None]).sum(0) / memberships.sum(0)


def soft_prompt_weights(weights: Tensor, memberships: Tensor) -> Tensor:
    """[B] factors B * sum_g q_g P(g|p) / n_g of prompts; their mean is 1 where q sums to 1."""
    return len(memberships) * (memberships * (weights / memberships.sum(0))).sum(1)
