"""REINFORCE++: advantages normalised over the whole batch (arXiv 2501.03262)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, model_validator
from torch import Tensor

from learner.advantages import ZERO_STD_TOLERANCE
from learner.columns import StepBatch
from learner.estimators import centred, to_go, whitened
from learner.plugin import AdvantageEstimator, Measurement
from mgrpo.config.base import RelationError, StrictConfig
from mgrpo.errors import ConfigFault


class ReinforceSettings(StrictConfig):
    """Keys of reinforce_plus_plus."""

    baseline: Literal["none", "group_mean"] = "none"
    """none: the plain form. group_mean: the paper's variant for groups of completions."""
    whiten_over: Literal["tokens", "completions"] = "tokens"
    """Whose mean is 0 and whose variance is 1: over tokens, long completions count more."""
    kl_weight: NonNegativeFloat = 0.0
    """Factor on the log-ratio to the reference, which is taken off the reward at each token and
    so reaches the tokens before it. 0: no reference."""
    epsilon: NonNegativeFloat = 1e-8
    """Added to the variance."""

    @model_validator(mode="after")
    def check_whitening(self) -> ReinforceSettings:
        if self.kl_weight > 0 and self.whiten_over == "completions":
            reason = "with a penalty at each token there is no one advantage of a completion."
            fault = ConfigFault("whiten_over", "completions", reason, "Use tokens.")
            raise RelationError([fault])
        return self


class ReinforcePlusPlus(AdvantageEstimator):
    """Whitens rewards over the step's trained tokens instead of group by group.

    Normalising with the batch's spread does not favour groups whose rewards hardly vary
    (https://arxiv.org/abs/2501.03262). All of the plug-in's layers are
    whitened together.

    Formula:
        A_t = (R_t - mean R) / √(var R + epsilon), over the step's trained tokens
        R_t = r - kl_weight Σ_{s ≥ t} (log p_s - log p_ref,s);  group_mean: r ← r - mean_group r
    """

    Settings: ClassVar[type[StrictConfig]] = ReinforceSettings
    requires: ClassVar[frozenset[Measurement]] = frozenset({"policy_logprobs", "ref_logprobs"})

    def wanted_measurements(self) -> frozenset[Measurement]:
        return self.requires if self.settings.kl_weight > 0 else frozenset()

    def estimate_advantages(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        """Returns, or whitened returns where that is done by completion."""
        here = batch.in_layers(self.layers) & batch.is_usable
        if self.settings.baseline == "group_mean":
            rewards = centred(rewards, batch.group_ids, here)
        if self.settings.whiten_over == "tokens":
            return rewards
        return whitened(rewards, here, epsilon=self.settings.epsilon)

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        if self.settings.whiten_over == "completions":
            return advantages
        here = batch.spread(batch.in_layers(self.layers) & batch.is_usable) & batch.is_trained
        if self.settings.kl_weight > 0:
            gaps = batch.measurements["policy_logprobs"] - batch.measurements["ref_logprobs"]
            penalties = self.settings.kl_weight * gaps * batch.is_trained
            advantages = advantages - to_go(penalties, batch.row_of_token)
        return whitened_tokens(batch, advantages, here, epsilon=self.settings.epsilon)


def whitened_tokens(batch: StepBatch, values: Tensor, mask: Tensor, *, epsilon: float) -> Tensor:
    """`whitened` over the tokens of all ranks: [M] -> [M]."""
    count = batch.total(mask)
    mean = batch.total(torch.where(mask, values, 0.0)) / max(1.0, count)
    centred_values = torch.where(mask, values - mean, 0.0)
    variance = batch.total(centred_values.square()) / max(1.0, count - 1)
    if count < 2 or variance**0.5 <= ZERO_STD_TOLERANCE:
        return torch.zeros_like(values)
    return centred_values / (variance + epsilon) ** 0.5
