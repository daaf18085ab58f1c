"""GCPO's projections (https://arxiv.org/abs/2508.05428): what an answer's siblings explain of it.

An answer that puts a group's answers together makes these depend on each other. An answer's part
that this explains is what it is when the others and the integrated answer are shown, minus what it
is on average over integrated answers.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


def causal_weights(
    states: Tensor, shown: Tensor, averaged: Tensor, mean_state: Tensor, *, alpha: float
) -> Tensor:
    """[n] α cos(z, Z - Z' + z̄): what advantages are multiplied by.

    Args:
        states: [n, D] z, at the end of each answer.
        shown: [n, D] Z, given the others and the first integrated answer.
        averaged: [n, D] Z', the mean of the same over integrated answers.
        mean_state: [D] or [n, D] z̄, the mean of z over the group.
    """
    return alpha * functional.cosine_similarity(states, shown - averaged + mean_state, dim=-1)


def projected_reference(
    shown: Tensor,
    by_answer: Tensor,
    plain: Tensor,
    *,
    combine: Literal["mean", "sum"] = "mean",
    floor: float = 1e-6,
) -> Tensor:
    """[T] log of π(x) - mean over integrated answers of π(x_l) + π(q), not below the floor.

    Args:
        shown: [T] log-probabilities of an answer's tokens given the others and the first integrated
            answer.
        by_answer: [L, T] the same given each integrated answer.
        plain: [T] the same given the problem alone.
        combine: the paper prints a sum in place of the mean; it can be negative, and is not what
            a conditional expectation gives.
        floor: smallest probability.
    """
    likely = by_answer.exp()
    alternatives = likely.mean(dim=0) if combine == "mean" else likely.sum(dim=0)
    return (shown.exp() - alternatives + plain.exp()).clamp(min=floor).log()


def group_mean(states: Tensor, group_ids: Tensor) -> Tensor:
    """[n, D] -> [n, D] the mean of each row's group."""
    size = int(group_ids.max()) + 1 if len(group_ids) else 0
    sums = torch.zeros((size, states.shape[1]), dtype=states.dtype).index_add(0, group_ids, states)
    counts = torch.bincount(group_ids, minlength=size).to(states.dtype)
    return (sums / counts[:, None].clamp(min=1))[group_ids]
