"""DisCO: an objective of whole groups, as coefficients of rows (https://arxiv.org/abs/2505.12366).

The gradient of a function of several rows' scores is that of a sum linear in the scores, with
coefficients held fixed. So rows of one group may be cut across micro-batches and ranks.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

PenaltyForm = Literal["squared", "repo"]


def set_objective(scores: Tensor, is_right: Tensor, *, temperature: float | None) -> Tensor:
    """Mean score of a group's right completions minus that of its wrong ones, a scalar.

    With a temperature the wrong ones' mean is t * log(mean(exp(score / t))), which the highest
    of them dominate as t falls: robust over the wrong answers. None: the plain mean (DisCO-b),
    which is also the limit of large t.

    Args:
        scores: [G] of one group.
        is_right: [G] bool.

    Returns:
        0 for a group that is all right or all wrong.
    """
    right, wrong = scores[is_right], scores[~is_right]
    if len(right) == 0 or len(wrong) == 0:
        return scores.sum() * 0
    if temperature is None:
        return right.mean() - wrong.mean()
    count = torch.tensor(float(len(wrong)), dtype=scores.dtype)
    return right.mean() - temperature * ((wrong / temperature).logsumexp(0) - count.log())


def set_coefficients(scores: Tensor, is_right: Tensor, *, temperature: float | None) -> Tensor:
    """[G] the derivative of `set_objective` by each score, no gradient."""
    coefficients = torch.zeros_like(scores)
    if not is_right.any() or is_right.all():
        return coefficients
    coefficients[is_right] = 1 / is_right.sum().to(scores.dtype)
    wrong = scores[~is_right].detach()
    shares = torch.zeros_like(wrong) if temperature is None else wrong / temperature
    coefficients[~is_right] = -shares.softmax(0)
    return coefficients


def constraint_factor(
    divergence: float, *, bound: float, weight: float, form: PenaltyForm
) -> float:
    """What the divergence's own gradient is multiplied by: 0 up to the bound.

    squared: the derivative of weight * max(divergence - bound, 0)². repo: half of it, as in the
    authors' code, where the hinge is a constant factor on the divergence.
    """
    excess = max(divergence - bound, 0.0)
    return weight * excess * (2.0 if form == "squared" else 1.0)
