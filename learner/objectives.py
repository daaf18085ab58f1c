"""Policy objectives beside the clipped one: elementwise over tokens, maximised.

An objective of a whole completion takes the completion's value of each token, spread over its
tokens, without gradient; each token then carries its own share of the gradient. That is equal to
differentiating the completion's ratio itself, lets advantages differ between tokens, and keeps the
reported value that of the objective.
"""

from __future__ import annotations

import torch
from torch import Tensor

from learner.losses import log_ratio
from learner.objective_tokens import ObjectiveTokens


def reinforce(policy_logprobs: Tensor, advantages: Tensor) -> Tensor:
    """A log p: no ratio and nothing clipped."""
    return advantages * policy_logprobs


def ratio_objective(policy_logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor) -> Tensor:
    """ρA, not clipped."""
    return log_ratio(policy_logprobs, old_logprobs).exp() * advantages


def capped_weight_objective(
    policy_logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    cap: float,
    floor: float = 0.0,
) -> Tensor:
    """clip(ρ, floor, cap) A log p, the clipped ratio a constant (CISPO).

    Every token keeps a gradient, however far its ratio has moved.

    Args:
        cap: largest weight, as a ratio: 1.28 is 28 % above the old policy.
        floor: smallest weight, as a ratio.
    """
    weights = log_ratio(policy_logprobs, old_logprobs).exp().clamp(floor, cap).detach()
    return weights * advantages * policy_logprobs


def sequence_clipped_objective(
    policy_logprobs: Tensor,
    mean_log_ratio: Tensor,
    advantages: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> Tensor:
    """min(sA, clip(s)A) with s = exp(mean log-ratio of the completion) (GSPO).

    Args:
        mean_log_ratio: [n] the mean of each token's completion.
    """
    own_gradient = policy_logprobs - policy_logprobs.detach()
    ratio = (mean_log_ratio.detach() + own_gradient).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return torch.minimum(ratio * advantages, clipped * advantages)


def one_sided_log_clip(
    log_ratios: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float
) -> Tensor:
    """Log-ratios that are held back only where the advantage pushes them on (GMPO)."""
    return torch.where(
        advantages > 0, log_ratios.clamp(max=clip_high), log_ratios.clamp(min=-clip_low)
    )


def geometric_mean_objective(
    clipped_log_ratios: Tensor, mean_log_ratio: Tensor, advantages: Tensor
) -> Tensor:
    """A exp(mean of the completion's clipped log-ratios) (GMPO).

    Args:
        clipped_log_ratios: [n] with gradient.
        mean_log_ratio: [n] their mean over each token's completion.
    """
    own_gradient = clipped_log_ratios - clipped_log_ratios.detach()
    return advantages * (mean_log_ratio.detach() + own_gradient).exp()


def mean_over_trained(tokens: ObjectiveTokens, values: Tensor) -> Tensor:
    """[n] -> [n] mean of each token's completion over its tokens that carry loss, spread."""
    is_trained = tokens.token_weights != 0
    sums = tokens.row_sums(torch.where(is_trained, values, 0.0))
    counts = tokens.row_sums(is_trained.to(values.dtype)).clamp(min=1)
    return tokens.spread(sums / counts)
