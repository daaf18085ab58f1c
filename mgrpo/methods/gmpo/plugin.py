"""GMPO: the geometric mean of clipped token ratios (arXiv 2507.20673)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveFloat
from torch import Tensor

from learner.objective_tokens import ObjectiveTokens
from learner.objectives import geometric_mean_objective, mean_over_trained, one_sided_log_clip
from learner.plugin import PolicyLoss
from mgrpo.config.base import StrictConfig


class GmpoSettings(StrictConfig):
    """Keys of gmpo."""

    clip_low: PositiveFloat = 0.4
    """How far a token's log-ratio may fall where the advantage is negative, in nats."""
    clip_high: PositiveFloat = 0.4
    """How far it may rise where the advantage is positive, in nats."""


class Gmpo(PolicyLoss):
    """Multiplies a completion's advantage by the geometric mean of its clipped token ratios.

    Less moved by single extreme tokens than the arithmetic mean, so the clip range can be wide,
    which leaves room to explore (https://arxiv.org/abs/2507.20673). Needs aggregation: seq_mean.

    Formula:
        J = A exp(mean_t l̃_t),   l_t = log ρ_t
        l̃_t = min(l_t, clip_high) where A > 0,  max(l_t, -clip_low) where A < 0
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = GmpoSettings
    whole_completion: ClassVar[bool] = True
    on_policy: ClassVar[str] = "is GRPO"

    def policy_objective(self, tokens: ObjectiveTokens) -> Tensor:
        log_ratios = one_sided_log_clip(
            tokens.log_ratio,
            tokens.advantages,
            clip_low=self.settings.clip_low,
            clip_high=self.settings.clip_high,
        )
        return geometric_mean_objective(
            log_ratios, mean_over_trained(tokens, log_ratios), tokens.advantages
        )
