"""What the learner needs of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mgrpo.config import LearnerConfig, MethodView, RunConfig, WeightsConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerRecipe:
    """The parts of a recipe that a learner's ranks work by."""

    method: MethodView
    settings: LearnerConfig
    model_dtype: Literal["float32", "bfloat16"]  # of the weights as broadcast and saved
    num_steps: int
    update_s: float  # deadline of an update, and of the ranks' meeting, in seconds
    weights: WeightsConfig
    weight_sync_s: float  # deadline of a broadcast, in seconds

    @property
    def num_updates(self) -> int:
        """Optimizer updates of the whole run, for the learning rate's schedule."""
        is_sequential = self.method.objective.update_order.type == "sequential"
        return self.num_steps * (len(self.method.layers) if is_sequential else 1)


def learner_recipe(config: RunConfig) -> LearnerRecipe:
    return LearnerRecipe(
        method=config.method_view,
        settings=config.learner,
        model_dtype=config.model.dtype,
        num_steps=config.steps,
        update_s=config.cluster.deadlines.update_s,
        weights=config.weights,
        weight_sync_s=config.cluster.deadlines.weight_sync_s,
    )
