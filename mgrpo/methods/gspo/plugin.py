"""GSPO: one ratio for a whole completion (arXiv 2507.18071)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from learner.objective_tokens import ObjectiveTokens
from learner.objectives import mean_over_trained, sequence_clipped_objective
from learner.plugin import PolicyLoss
from mgrpo.config.base import StrictConfig


class GspoSettings(StrictConfig):
    """Keys of gspo."""

    clip_low: float = Field(default=3e-4, ge=0, lt=1)
    """The lower side, 1 - clip_low. The ratio of a whole completion moves far less than that of a
    token."""
    clip_high: float = Field(default=4e-4, ge=0)
    """The upper side of the range, 1 + clip_high."""


class Gspo(PolicyLoss):
    """Clips the geometric mean of a completion's token ratios instead of each ratio.

    A reward is given to the completion, so the completion is what is reweighted and held back
    (https://arxiv.org/abs/2507.18071). Needs aggregation: seq_mean. Advantages may differ between
    tokens (the paper's GSPO-token). With one optimizer step per rollout it is GRPO.

    Formula:
        J = min(s A, clip(s, 1 - clip_low, 1 + clip_high) A),   s = exp(mean_t log ρ_t)
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = GspoSettings
    whole_completion: ClassVar[bool] = True
    on_policy: ClassVar[str] = "is GRPO"

    def policy_objective(self, tokens: ObjectiveTokens) -> Tensor:
        return sequence_clipped_objective(
            tokens.policy_logprobs,
            mean_over_trained(tokens, tokens.log_ratio),
            tokens.advantages,
            clip_low=self.settings.clip_low,
            clip_high=self.settings.clip_high,
        )
