"""RLOO: the others of the group as the baseline (arXiv 2402.14740)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from learner.columns import StepBatch
from learner.estimators import leave_one_out
from learner.plugin import AdvantageEstimator
from mgrpo.config.base import StrictConfig


class RlooSettings(StrictConfig):
    """Keys of rloo."""

    normalise: bool = False
    """Then mean 0 and standard deviation 1 over the step's completions."""
    epsilon: NonNegativeFloat = 1e-4
    """Added to that standard deviation."""


class Rloo(AdvantageEstimator):
    """Compares each reward with the mean of the others of its group.

    Its own reward is not in its baseline, so the gradient is unbiased: G/(G-1) times the centred
    reward (https://arxiv.org/abs/2402.14740). A completion without usable others gets 0.

    Formula:
        A_i = r_i - mean_{j ≠ i} r_j = G / (G - 1) · (r_i - mean_group r)
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = RlooSettings

    def estimate_advantages(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        here = batch.in_layers(self.layers) & batch.is_usable
        advantages = leave_one_out(rewards, batch.group_ids, here)
        if not self.settings.normalise or int(here.sum()) < 2 or not advantages.any():
            return advantages
        counted = advantages[here]
        spread = counted.std() + self.settings.epsilon
        return torch.where(here, (advantages - counted.mean()) / spread, 0.0)
