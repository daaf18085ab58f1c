"""Rewards from the steps of a completion: WS-GRPO (https://arxiv.org/abs/2602.17025).

A preference model, trained on right and wrong completions of the same problem, says of every
step whether the completion became better by it. The trajectory's reward adds these step scores
to the outcome, so that steps that lead nowhere cost something and completions become shorter.

Descriptions of the method differ in how the parts are put together; this is one reading, and
what they differ in is an argument: the aggregate, the range of steps and the penalty outside it.
Pure functions.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Aggregate = Literal["mean", "sum"]


def trajectory_reward(
    step_scores: Tensor,
    is_correct: bool,
    *,
    lambda_step: float = 1.0,
    lambda_outcome: float = 5.0,
    aggregate: Aggregate = "mean",
    step_range: tuple[int, int] = (3, 6),
    range_penalty: float = 1.0,
) -> float:
    """lambda_step * aggregate(step scores) + lambda_outcome * [correct] - penalty.

    Args:
        step_scores: [steps] probabilities that a step helped, at least one.
        is_correct: the final answer is right.
        lambda_step, lambda_outcome: weights of the two parts.
        aggregate: of the step scores. A sum pays for every further step; a mean does not.
        step_range: fewest and most steps that are not penalised, both included.
        range_penalty: subtracted once where the number of steps lies outside the range.

    Raises:
        ValueError: there is no step, or the range is empty.
    """
    if step_scores.ndim != 1 or len(step_scores) == 0:
        raise ValueError(f"step_scores must be [steps], steps >= 1, not {tuple(step_scores.shape)}")
    fewest, most = step_range
    if fewest > most:
        raise ValueError(f"step_range {step_range} holds no number of steps")
    scores = step_scores.double()
    steps = scores.mean() if aggregate == "mean" else scores.sum()
    reward = lambda_step * float(steps) + lambda_outcome * is_correct
    is_in_range = fewest <= len(scores) <= most
    return reward if is_in_range else reward - range_penalty


def bradley_terry_losses(preferred: Tensor, other: Tensor) -> Tensor:
    """-log sigmoid(preferred - other): how surprising each preference is, in nats.

    The Bradley-Terry model says that one of two is preferred with probability
    sigmoid(difference of their values).

    Args:
        preferred, other: values of the two of each pair, of one shape.

    Returns:
        A loss per pair, unreduced; log 2 where the two are equal.
    """
    if preferred.shape != other.shape:
        raise ValueError(f"{tuple(preferred.shape)} preferred, {tuple(other.shape)} others")
    return functional.softplus(other - preferred)


def pair_accuracy(preferred: Tensor, other: Tensor) -> float:
    """Share of pairs whose preferred one has the larger value; a tie counts half."""
    margin = preferred - other
    return float(((margin > 0).double() + 0.5 * (margin == 0).double()).mean())


def step_scores_from_values(values: Tensor, *, is_later_preferred: bool = True) -> Tensor:
    """sigmoid of the change of value from each prefix to the next.

    Args:
        values: [steps + 1] of the prompt alone and of each prefix after it.
        is_later_preferred: True gives the probability that adding the step helped; False the
            probability that the prefix was better without it.

    Returns:
        [steps] probabilities; 0.5 where nothing changed.
    """
    change = torch.diff(values)
    return torch.sigmoid(change if is_later_preferred else -change)
