"""Tokens that were put into a completion, trained as a supervised target (EDGE-GRPO option)."""

from __future__ import annotations

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
    """

    Settings: ClassVar[type[StrictConfig]] = SupervisedSettings

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        return torch.where(batch.is_sampled, advantages, self.settings.weight)
