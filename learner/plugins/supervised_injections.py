"""Tokens that were put into a completion, trained as a supervised target (EDGE-GRPO option)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import PositiveFloat
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin
from mgrpo.config.base import StrictConfig


class SupervisedSettings(StrictConfig):
    """Keys of supervised_injections."""

    weight: PositiveFloat = 1.0
    """Advantage of every token that the policy did not sample."""


class SupervisedInjections(LearnerPlugin):
    """Gives tokens that the policy did not sample a constant positive advantage.

    With one update per rollout their ratio is 1, and the gradient of -weight * ratio is that of
    -weight * log p: supervised learning of what was injected, whatever its reward.

    Formula:
        A_t = weight for tokens that the policy did not sample
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = SupervisedSettings
    needs: ClassVar[tuple[str, ...]] = ("expert_anchor", "guided_error_correction")
    overlaps: ClassVar[Mapping[str, str]] = {
        "shaped_probability": "trains the same tokens by a shaped probability: the two multiply"
    }

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        return torch.where(batch.is_sampled, advantages, self.settings.weight)
