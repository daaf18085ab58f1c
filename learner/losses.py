"""The token-level objective: clipped policy gradient, KL penalty, importance weights.

Every function is elementwise over tokens, so [B, T] and flat [tokens] both work, and padding
or packing cannot change a result. Objectives are maximised, losses minimised. Aggregations are
weights of tokens, whose denominators are those of the whole step (`learner.denominators`).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

KlEstimator = Literal["k1", "k2", "k3"]

MAX_LOG_RATIO = 20.0
"""exp(20) is 4.9e8: beyond it a ratio says only "very different", and exp would overflow."""


def log_ratio(logprobs: Tensor, other_logprobs: Tensor) -> Tensor:
    """log of the probability ratio, kept within ±20."""
    return (logprobs - other_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def clipped_objective(
    policy_logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> Tensor:
    """min(ρA, clip(ρ, 1 - clip_low, 1 + clip_high)A), the objective of PPO and GRPO per token.

    A token whose ratio ρ has left the clip range in the direction that its advantage pushes
    gets no gradient. GRPO: https://arxiv.org/abs/2402.03300; clip_high above clip_low: DAPO,
    https://arxiv.org/abs/2503.14476.

    Args:
        policy_logprobs: log-probabilities under the current weights, with gradient.
        old_logprobs: the same tokens under the weights that began this step, no gradient.
        advantages: broadcastable to the log-probabilities.
        dual_clip: where the advantage is negative, the objective is not let below
            dual_clip * A (https://arxiv.org/abs/1912.09729), so that a token that has become
            far more likely cannot dominate. None: no such bound.
    """
    ratio = log_ratio(policy_logprobs, old_logprobs).exp()
    clipped_ratio = ratio.clamp(1 - clip_low, 1 + clip_high)
    objective = torch.minimum(ratio * advantages, clipped_ratio * advantages)
    if dual_clip is None:
        return objective
    bounded = torch.maximum(objective, dual_clip * advantages)
    return torch.where(advantages < 0, bounded, objective)


def is_clipped(
    policy_logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> Tensor:
    """True for the tokens whose gradient `clipped_objective` takes away."""
    ratio = log_ratio(policy_logprobs, old_logprobs).exp()
    clipped = ((advantages > 0) & (ratio > 1 + clip_high)) | (
        (advantages < 0) & (ratio < 1 - clip_low)
    )
    if dual_clip is None:
        return clipped
    return clipped | ((advantages < 0) & (ratio > dual_clip))


def kl_penalty(
    policy_logprobs: Tensor, ref_logprobs: Tensor, *, estimator: KlEstimator = "k3"
) -> Tensor:
    """One-sample estimate of the KL divergence from the reference policy, per token.

    With l = policy - reference on tokens that the policy sampled: k1 = l, k2 = l²/2,
    k3 = exp(-l) + l - 1 (http://joschu.net/blog/kl-approx.html). Used as a loss their expected
    gradients differ: k1's is 0, k2's is that of KL(policy‖ref), k3's that of KL(ref‖policy).
    """
    difference = policy_logprobs - ref_logprobs
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference.square() / 2
    if estimator == "k3":
        # Only the exponential is kept in range: beyond it the linear part still pulls back.
        return (-difference).clamp(max=MAX_LOG_RATIO).exp() + difference - 1
    raise ValueError(f"unknown KL estimator {estimator!r}; use k1, k2 or k3")


def importance_weights(old_logprobs: Tensor, rollout_logprobs: Tensor, *, cap: float) -> Tensor:
    """min(exp(old - rollout), cap): corrects for engines that compute differently, no gradient.

    `old_logprobs` are the learner's own for the weights that sampled the tokens,
    `rollout_logprobs` what the engine reported. This is truncated importance sampling per
    token; without the cap a single token could outweigh the step.
    """
    return log_ratio(old_logprobs, rollout_logprobs).exp().clamp(max=cap).detach()


def token_losses(
    objective: Tensor,
    *,
    weights: Tensor | float = 1.0,
    kl: Tensor | None = None,
    kl_weight: Tensor | float = 0.0,
) -> Tensor:
    """-weights * objective + kl_weight * KL, per token.

    Importance weights correct the policy term alone: the KL penalty is about the learner's
    own distribution.
    """
    losses = -weights * objective
    return losses if kl is None else losses + kl_weight * kl


def zero_where_masked(values: Tensor, mask: Tensor) -> Tensor:
    """0 where `mask` is False, whatever stood there.

    A product alone is not enough: 0 * inf is NaN. Clean log-probabilities with it *before*
    `exp` as well, because the backward pass multiplies 0 by the derivative at the padding.
    """
    return torch.where(mask, values, 0.0) * mask
