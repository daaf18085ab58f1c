"""What a plan needs of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cluster.allocations import PlacementRecipe
from mgrpo.config import MethodView, RunConfig
from mgrpo.config.pipeline import PipelineConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRecipe(PlacementRecipe):
    """The parts of a recipe that decide the size, the memory and the time of a step."""

    name: str
    method: MethodView
    pipeline: PipelineConfig
    max_prompt_tokens: int
    model_dtype: Literal["float32", "bfloat16"]  # of the weights as broadcast
    packed_buffer_mib: int  # of the broadcast
    num_reward_processes: int
    checkpoint_every: int  # steps; 0: none
    evaluate_every: int


def plan_recipe(config: RunConfig) -> PlanRecipe:
    return PlanRecipe(
        name=config.name,
        method=config.method_view,
        pipeline=config.pipeline,
        layers=config.layers,
        engines=config.engines,
        learner=config.learner,
        cluster=config.cluster,
        max_prompt_tokens=config.data.max_prompt_tokens,
        model_dtype=config.model.dtype,
        packed_buffer_mib=config.weights.packed_buffer_mib,
        num_reward_processes=config.rewards.num_processes,
        checkpoint_every=config.checkpoints.every_steps,
        evaluate_every=config.evaluation.every_steps,
    )
