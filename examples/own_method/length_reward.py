"""The length reward of Kimi k1.5 (https://arxiv.org/abs/2501.12599, section 2.3.3)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin
from mgrpo.config.base import StrictConfig


class LengthRewardSettings(StrictConfig):
    """Keys of length_reward:LengthReward."""

    weight: float = Field(default=0.2, gt=0)
    """Factor on the length reward, which lies between -0.5 and 0.5."""


class LengthReward(LearnerPlugin):
    """Among the completions of a group, pays short right ones and charges long wrong ones.

    Formula:
        λ_i = 0.5 - (|y_i| - min |y|) / (max |y| - min |y|)  over the group;  0 if all are as long
        r_i ← r_i + weight λ_i if right, r_i + weight min(0, λ_i) if wrong
    """

    Settings: ClassVar[type[StrictConfig]] = LengthRewardSettings

    def shape_rewards(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        lengths = batch.lengths.double()  # [N] tokens
        shortest = torch.empty_like(lengths)
        longest = torch.empty_like(lengths)
        for group in batch.group_ids.unique():
            members = batch.group_ids == group
            counted = lengths[members & batch.is_usable]
            if len(counted):
                shortest[members], longest[members] = counted.min(), counted.max()
        spread = longest - shortest
        share = 0.5 - (lengths - shortest) / spread.clamp(min=1)
        share = torch.where(spread > 0, share, 0.0)
        bonus = torch.where(batch.is_correct, share, share.clamp(max=0))
        return torch.where(batch.is_usable, rewards + self.settings.weight * bonus, rewards)
