"""An entropy bonus in the loss, fixed or held at a target."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, NonNegativeFloat, model_validator
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin, Measurement
from mgrpo.config.base import StrictConfig, refuse


class EntropyBonusSettings(StrictConfig):
    """Keys of entropy_bonus."""

    coefficient: NonNegativeFloat = 0.001
    """Factor on the entropy, in nats, which is averaged as the layer averages its losses."""
    target: float | None = Field(default=None, gt=0)
    """Nats. Above this mean entropy there is no bonus. null: always the same bonus."""
    gain: NonNegativeFloat = 0.0
    """What the coefficient grows by for each nat below the target."""
    max_coefficient: NonNegativeFloat = 0.1
    """The coefficient grows no further."""

    @model_validator(mode="after")
    def check_coefficient(self) -> EntropyBonusSettings:
        if self.gain > 0 and self.target is None:
            refuse("gain", self.gain, "needs a target.")
        if self.coefficient > self.max_coefficient:
            why = f"is above max_coefficient, {self.max_coefficient:g}."
            refuse("coefficient", self.coefficient, why)
        return self


class EntropyBonus(LearnerPlugin):
    """Rewards the policy for entropy.

    With `target` only as far as it is needed, after Skywork-OR1 (https://arxiv.org/abs/2505.22312).

    Formula:
        L ← L - c H,   H: token entropies, averaged as the layer averages its losses
        c = coefficient;  with target: coefficient + gain (target - mean H) below it, 0 above

    Metrics:
        entropy_bonus/coefficient: c of this step.

    Reconstructed:
        The rule of `target`. Skywork-OR1 moves its coefficient up or down by a constant after each
        step. Here it is proportional to the difference: it depends only on the step, so a resumed
        run continues with the same numbers.
    """

    Settings: ClassVar[type[StrictConfig]] = EntropyBonusSettings
    requires: ClassVar[frozenset[Measurement]] = frozenset({"entropies"})

    def wanted_measurements(self) -> frozenset[Measurement]:
        return frozenset() if self.settings.target is None else self.requires

    def works_by_tree(self) -> bool:
        return self.settings.target is None

    def weigh_entropy(self, batch: StepBatch, advantages: Tensor, token_weights: Tensor) -> Tensor:
        coefficient = self.coefficient(batch)
        batch.metrics["entropy_bonus/coefficient"] = (coefficient, 1.0)
        return -coefficient * token_weights

    def coefficient(self, batch: StepBatch) -> float:
        settings = self.settings
        if settings.target is None:
            return float(settings.coefficient)
        here = batch.spread(batch.in_layers(self.layers) & batch.is_usable) & batch.is_trained
        count = batch.total(here)
        if count == 0:
            return 0.0
        entropies = torch.where(here, batch.measurements["entropies"], 0.0)
        missing = settings.target - batch.total(entropies) / count
        if missing <= 0:
            return 0.0
        return float(min(settings.coefficient + settings.gain * missing, settings.max_coefficient))
