"""DAPO's soft penalty for answers that run long (arXiv 2503.14476)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin
from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig, refuse
from mgrpo.errors import ConfigFault, Faults


class OverlongSettings(StrictConfig):
    """Keys of overlong_penalty."""

    max_tokens: PositiveInt
    """From this length on the whole penalty is due; DAPO: 20480."""
    buffer_tokens: PositiveInt
    """How many tokens before that it begins to rise; DAPO: 4096."""
    penalty: NonNegativeFloat = 1.0
    """Taken off the reward at most."""

    @model_validator(mode="after")
    def check_buffer(self) -> OverlongSettings:
        if self.buffer_tokens > self.max_tokens:
            refuse("buffer_tokens", self.buffer_tokens, f"is above max_tokens, {self.max_tokens}.")
        return self


class OverlongPenalty(LearnerPlugin):
    """Takes up to 1 off the reward of a completion that comes near the length limit.

    A cut that comes without warning punishes sound reasoning; a slope tells the policy where the
    limit is (https://arxiv.org/abs/2503.14476). Whether the answer is right stays as it was.

    Formula:
        r ← r - penalty · clip((|y| - (max_tokens - buffer_tokens)) / buffer_tokens, 0, 1)

    Metrics:
        overlong/penalised_fraction: share of completions that pay anything.
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = OverlongSettings

    @classmethod
    def faults(
        cls, settings: OverlongSettings, layers: frozenset[int], method: MethodView
    ) -> Faults:
        begins = settings.max_tokens - settings.buffer_tokens
        longest = max(method.layers[number - 1].max_completion_tokens for number in layers)
        if begins >= longest:
            why = f"the penalty begins above {begins} tokens, and completions end at {longest}."
            hint = "Use the layer's max_completion_tokens."
            yield ConfigFault("max_tokens", str(settings.max_tokens), why, hint)

    def shape_rewards(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        begins = self.settings.max_tokens - self.settings.buffer_tokens
        excess = (batch.lengths.double() - begins) / self.settings.buffer_tokens
        share = excess.clamp(0, 1)
        here = batch.in_layers(self.layers) & batch.is_usable
        batch.metrics["overlong/penalised_fraction"] = (
            float((here & (share > 0)).sum()),
            float(here.sum()),
        )
        return rewards - self.settings.penalty * share
