"""The distance to the reference policy as part of the reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import PositiveFloat
from torch import Tensor

from learner.columns import StepBatch
from learner.losses import kl_penalty
from learner.plugin import LearnerPlugin, Measurement
from mgrpo.config.base import StrictConfig


class KlInRewardSettings(StrictConfig):
    """Keys of kl_in_reward."""

    weight: PositiveFloat = 0.05
    """Factor on the log-ratio, summed over the completion's tokens."""


class KlInReward(LearnerPlugin):
    """Takes the completion's log-ratio to the reference policy off its reward.

    The k1 estimate under the weights that begin the step, a constant for the gradient, as RLOO
    (https://arxiv.org/abs/2402.14740) and PPO for language models do. In the loss k1 would have no
    gradient on average; in the reward it has that of KL(policy ‖ reference).

    Formula:
        r ← r - weight Σ_t (log p_t - log p_ref,t)

    Metrics:
        kl_in_reward/kl: mean over completions of the sum, nats.
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = KlInRewardSettings
    requires: ClassVar[frozenset[Measurement]] = frozenset({"policy_logprobs", "ref_logprobs"})
    overlaps: ClassVar[Mapping[str, str]] = {
        "unbiased_kl": "penalises the distance to the same reference too"
    }

    def shape_rewards(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        measured = batch.measurements
        penalties = kl_penalty(
            measured["policy_logprobs"], measured["ref_logprobs"], estimator="k1"
        )
        sums = batch.row_sums(torch.where(batch.is_trained, penalties, 0.0))
        here = batch.in_layers(self.layers) & batch.is_usable
        batch.metrics["kl_in_reward/kl"] = (float(sums[here].sum()), float(here.sum()))
        return rewards - self.settings.weight * sums
