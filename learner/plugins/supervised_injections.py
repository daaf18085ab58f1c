"""Tokens that were put into a completion, trained as a supervised target (EDGE-GRPO option)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import PositiveFloat
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin
from learner.plugin_pairs import has_foreign, used
from mgrpo.config import RunConfig
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

    needs_all_tokens = False
    Settings: ClassVar[type[StrictConfig]] = SupervisedSettings

    @classmethod
    def warnings(cls, settings: Any, layers: frozenset[int], config: RunConfig) -> list[str]:
        sources = used(config, "expert_anchor", "guided_error_correction")
        if not sources and not has_foreign(config):
            return ["no plug-in of the recipe puts text in that was not sampled: it has no effect."]
        is_masked = [
            entry.settings.get("offpolicy", "mask_injected") == "mask_injected"
            for entry in config.plugins
            if entry.use == "guided_error_correction"
        ]
        if is_masked and all(is_masked) and "expert_anchor" not in sources:
            return [
                "guided_error_correction has offpolicy: mask_injected, so what it puts in carries "
                "no loss: this has no effect. Set offpolicy: sft_loss."
            ]
        return []

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        return torch.where(batch.is_sampled, advantages, self.settings.weight)
