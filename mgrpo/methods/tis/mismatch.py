"""Weights and rejections for engines that compute other log-probabilities than the learner.

Pure functions of log w = log-probability by the learner - log-probability by the engine, of the
weights that sampled. Nothing here has a gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from learner.losses import MAX_LOG_RATIO


def truncated_weights(log_weights: Tensor, *, cap: float) -> Tensor:
    """min(w, cap): truncated importance sampling (TIS)."""
    return log_weights.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp().clamp(max=cap)


def masked_weights(log_weights: Tensor, *, lowest: float, highest: float) -> Tensor:
    """w where lowest <= w <= highest, else 0: masked importance sampling (MIS)."""
    weights = log_weights.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    is_near = (lowest <= weights) & (weights <= highest)
    return torch.where(is_near, weights, 0.0)


def k3(log_weights: Tensor) -> Tensor:
    """w - 1 - log w: an estimate of KL(engine ‖ learner), never negative, per token."""
    bounded = log_weights.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return bounded.exp() - 1 - bounded
