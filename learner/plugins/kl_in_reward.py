"""The distance to the reference policy as part of the reward."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import PositiveFloat
from torch import Tensor

from learner.columns import StepBatch
from learner.losses import kl_penalty
from learner.plugin import LearnerPlugin, Signal
from learner.plugin_pairs import used
from mgrpo.config import RunConfig
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

    Settings: ClassVar[type[StrictConfig]] = KlInRewardSettings
    requires: ClassVar[frozenset[Signal]] = frozenset({"policy_logprobs", "ref_logprobs"})

    @classmethod
    def warnings(cls, settings: Any, layers: frozenset[int], config: RunConfig) -> list[str]:
        others = used(config, "unbiased_kl")
        if config.max_kl_weight > 0:
            others.append("objective.kl.weight")
        others += [
            "reinforce_plus_plus with kl_weight"
            for entry in config.plugins
            if entry.use == "reinforce_plus_plus" and entry.settings.get("kl_weight")
        ]
        return [f"{other} penalises the distance to the same reference too." for other in others]

    def shape_rewards(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        penalties = kl_penalty(
            batch.signals["policy_logprobs"], batch.signals["ref_logprobs"], estimator="k1"
        )
        sums = batch.row_sums(torch.where(batch.is_trained, penalties, 0.0))
        here = batch.in_layers(self.layers) & batch.is_usable
        batch.metrics["kl_in_reward/kl"] = (float(sums[here].sum()), float(here.sum()))
        return rewards - self.settings.weight * sums
