"""CISPO: clipped importance weights instead of clipped updates (arXiv 2506.13585)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from learner.objective_tokens import ObjectiveTokens
from learner.objectives import capped_weight_objective
from learner.plugin import PolicyLoss
from mgrpo.config.base import StrictConfig


class CispoSettings(StrictConfig):
    """Keys of cispo."""

    cap: float = Field(default=5.0, ge=1)
    """Largest weight of a token, as the ratio itself and not how far it may be above 1: TRL's
    epsilon_high, and 1 + verl's."""
    floor: float = Field(default=0.0, ge=0, lt=1)
    """Smallest weight, as the ratio itself: 1 - verl's clip_ratio_low. 0: none, as in TRL."""


class Cispo(PolicyLoss):
    """Multiplies each token's A log p by its ratio, which is capped and without gradient.

    No token loses its gradient, not even one whose ratio has left the range; the rare words that
    change a line of reasoning are such tokens (https://arxiv.org/abs/2506.13585).

    Formula:
        J = sg(clip(ρ, floor, cap)) A log p,   ρ = p / p_old,  sg: a constant for the gradient
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = CispoSettings
    on_policy: ClassVar[str] = "has the gradient of the clipped objective, GRPO's"

    def policy_objective(self, tokens: ObjectiveTokens) -> Tensor:
        return capped_weight_objective(
            tokens.policy_logprobs,
            tokens.old_logprobs,
            tokens.advantages,
            cap=self.settings.cap,
            floor=self.settings.floor,
        )
