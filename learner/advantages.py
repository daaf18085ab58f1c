"""Advantages: a completion's reward relative to its group.

Pure functions on small 1-D tensors, one group at a time. Half-precision rewards are widened
first. A group whose rewards are all equal holds no information, so its advantages are exactly
0, decided by comparing its standard deviation with a tolerance: dividing rounding noise by
epsilon would turn it into a full-sized gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ZERO_STD_TOLERANCE = 1e-8


def group_advantages(
    rewards: Tensor, *, scale_by_std: bool = True, ddof: int = 1, epsilon: float = 1e-6
) -> Tensor:
    """Centre rewards on their group's mean and, as GRPO does, divide by its spread.

    GRPO (https://arxiv.org/abs/2402.03300) leaves ddof and epsilon open. Dr. GRPO
    (https://arxiv.org/abs/2503.20783) does not divide.

    Args:
        rewards: [group] rewards of one group.
        scale_by_std: divide by (standard deviation + epsilon).
        ddof: 0 for the population's standard deviation, 1 for the sample's.
        epsilon: added to the standard deviation.

    Returns:
        [group] advantages that sum to 0; all exactly 0 where the rewards are equal.

    Raises:
        ValueError: fewer than two rewards, or not one-dimensional.
    """
    rewards = widened(rewards, name="rewards")
    if len(rewards) < 2:
        raise ValueError(
            f"a group of {len(rewards)} has no advantage: it takes at least 2 rewards to compare"
        )
    return normalise(rewards, rewards, scale_by_std=scale_by_std, ddof=ddof, epsilon=epsilon)


def process_advantages(
    step_rewards: Sequence[Tensor],
    step_ends: Sequence[Tensor],
    num_tokens: Sequence[int],
    *,
    ddof: int = 1,
    epsilon: float = 1e-6,
) -> list[Tensor]:
    """Advantages from rewards of single steps: each token sees its own and all later steps.

    The process-supervision variant of GRPO (https://arxiv.org/abs/2402.03300, section 4.1.3):
    all step rewards of a group are normalised together, and a token's advantage is the sum of
    the normalised rewards of the steps that end at or after it, without discount.

    Args:
        step_rewards: per completion, [steps] rewards.
        step_ends: per completion, [steps] ints, the 1-based token that each step ends on.
        num_tokens: per completion, its length T_i.

    Returns:
        Per completion, [T_i] advantages. Tokens after the last step's end get 0.
    """
    pooled = widened(torch.cat(list(step_rewards)), name="step_rewards")
    if len(pooled) < 2:
        raise ValueError(f"{len(pooled)} step reward in the group: it takes at least 2 to compare")
    advantages = []
    for rewards, ends, length in zip(step_rewards, step_ends, num_tokens, strict=True):
        if rewards.shape != ends.shape:
            raise ValueError(f"{len(rewards)} step rewards but {len(ends)} step ends")
        normalised = normalise(
            rewards.to(pooled.dtype), pooled, scale_by_std=True, ddof=ddof, epsilon=epsilon
        )
        is_ahead = ends[None, :] >= torch.arange(1, length + 1)[:, None]  # [T_i, steps]
        advantages.append((is_ahead * normalised).sum(dim=1))
    return advantages


def improvement_advantages(rewards: Tensor, parent_rewards: Tensor) -> Tensor:
    """R(correction) - R(parent), the change by a correction. Both [n], and so is the result."""
    if rewards.shape != parent_rewards.shape:
        raise ValueError(f"{tuple(rewards.shape)} rewards, {tuple(parent_rewards.shape)} parents'")
    return widened(rewards, name="rewards") - widened(parent_rewards, name="parent_rewards")


def const_positive_advantages(is_success: Tensor) -> Tensor:
    """1 for each success, 0 for the rest: rejection sampling. [n] bools in, [n] float64 out."""
    return is_success.to(torch.float64)


def normalise(
    values: Tensor, population: Tensor, *, scale_by_std: bool, ddof: int, epsilon: float
) -> Tensor:
    """(values - mean) / (std + epsilon), both statistics taken over `population`."""
    std = population.std(correction=ddof)
    if std <= ZERO_STD_TOLERANCE:
        return torch.zeros_like(values)
    centred = values - population.mean()
    return centred / (std + epsilon) if scale_by_std else centred


def widened(values: Tensor, *, name: str) -> Tensor:
    """The same values as float32 or wider, since half precision cannot tell rewards apart."""
    if values.ndim != 1:
        raise ValueError(f"{name} must have one dimension, not shape {tuple(values.shape)}")
    is_wide = values.dtype in (torch.float32, torch.float64)
    return values if is_wide else values.to(torch.float32)
