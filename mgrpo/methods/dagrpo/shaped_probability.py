"""DaGRPO's objective: tokens that nothing sampled are trained by a shaped probability."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from learner.columns import StepBatch
from learner.losses import clipped_objective
from learner.objective_tokens import ObjectiveTokens
from learner.plugin import PolicyLoss
from mgrpo.config.base import StrictConfig
from mgrpo.methods.dagrpo.distinct_pairs import shaped_probability

OFF_POLICY = "dagrpo/off_policy"


class ShapedProbabilitySettings(StrictConfig):
    """Keys of shaped_probability."""

    gamma: PositiveFloat = 0.1
    """Tokens that were not sampled are trained by p / (p + gamma)."""
    clip_low: float = Field(default=0.2, ge=0, lt=1)
    """Clip range of the tokens that were sampled: its lower side, 1 - clip_low."""
    clip_high: float = Field(default=0.2, ge=0)
    """Its upper side, 1 + clip_high."""


class ShapedProbability(PolicyLoss):
    """Trains tokens that were not sampled by a shaped probability instead of a ratio.

    Solutions that expert_anchor adds have no log-probability under the policy that sampled, so
    they have no ratio. All other tokens have the clipped objective.

    Formula:
        tokens that were not sampled: J = A p / (p + gamma); the others: the clipped objective

    Reconstructed:
        The shaped probability is LUFFY's (https://arxiv.org/abs/2504.14945); DaGRPO's own formula
        is not public.
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = ShapedProbabilitySettings

    def token_columns(
        self, batch: StepBatch, advantages: Tensor, token_weights: Tensor
    ) -> dict[str, Tensor]:
        return {OFF_POLICY: (~batch.is_sampled).double()}

    def policy_objective(self, tokens: ObjectiveTokens) -> Tensor:
        own = tokens.policy_logprobs
        # Replayed corrections alone have no such column; all of their tokens were sampled.
        is_off_policy = tokens.columns.get(OFF_POLICY, torch.zeros_like(own)) > 0
        # Nothing sampled these tokens, so they have no old log-probability. It is taken out before
        # the ratio, since a where() behind it would still multiply 0 by what stands there.
        old = torch.where(is_off_policy, own.detach(), tokens.old_logprobs)
        clipped = clipped_objective(
            own,
            old,
            tokens.advantages,
            clip_low=self.settings.clip_low,
            clip_high=self.settings.clip_high,
        )
        shaped = shaped_probability(own, gamma=self.settings.gamma) * tokens.advantages
        return torch.where(is_off_policy, shaped, clipped)
