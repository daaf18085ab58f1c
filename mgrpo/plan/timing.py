"""Rough times of a step's parts, to detect parts that would mostly be idle.

Sampling is bound by memory bandwidth (each decoded token of a batch reads the weights once and
its own sequence's keys and values), prefill and training by arithmetic: 2 operations per
parameter and token forward, 6 with the backward pass (https://arxiv.org/abs/2001.08361, section
2.1), 8 with recomputed activations. The reached shares of the data sheet's peaks are assumptions,
and completions are assumed to have half the maximum length.
"""

from __future__ import annotations

from dataclasses import dataclass

from mgrpo.plan.batch import LayerBatch, layer_batches, learner_tokens
from mgrpo.plan.engine_memory import EngineMemory, kv_bytes_per_token
from mgrpo.plan.gpus import GpuType
from mgrpo.plan.recipe import PlanRecipe
from mgrpo.plan.shape import ModelShape

BANDWIDTH_SHARE = 0.6
ARITHMETIC_SHARE = 0.4
LENGTH_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class PartTime:
    """One part of a step, without overlap."""

    name: str  # "layer solve", "learner"
    seconds: float


def part_times(
    recipe: PlanRecipe, shape: ModelShape, gpu: GpuType, engine: EngineMemory
) -> list[PartTime]:
    """Every layer's sampling and the learner's update; [] for a GPU whose speed is not known."""
    if gpu.tflops is None or gpu.bandwidth_gbps is None:
        return []
    times = [
        PartTime(f"layer {batch.name}", sampling_seconds(recipe, shape, gpu, engine, batch))
        for batch in layer_batches(recipe)
    ]
    per_update = 8 if recipe.learner.gradient_checkpointing else 6
    per_token = per_update * recipe.method.objective.updates_per_rollout
    if recipe.method.objective.optimizer_steps > 1:
        per_token += 2  # log-probabilities before the first optimizer step
    work = learner_tokens(recipe) * LENGTH_SHARE * per_token * shape.num_parameters
    speed = recipe.learner.num_ranks * gpu.tflops * 1e12 * ARITHMETIC_SHARE
    return [*times, PartTime("learner", work / speed)]


def sampling_seconds(
    recipe: PlanRecipe, shape: ModelShape, gpu: GpuType, engine: EngineMemory, batch: LayerBatch
) -> float:
    """One engine's share of a layer."""
    assert gpu.tflops is not None and gpu.bandwidth_gbps is not None, "part_times asks first"
    ways, count = recipe.engines.tensor_parallel_size, batch.sequences_per_engine
    at_once = max(1, min(count, recipe.engines.max_num_seqs, engine.cache_sequences or 1))
    length = batch.max_completion_tokens * LENGTH_SHARE
    prompt = batch.max_sequence_tokens - batch.max_completion_tokens
    read = 2 * shape.num_parameters / ways + at_once * (prompt + length / 2) * kv_bytes_per_token(
        shape, ways
    )
    decode_s = count / at_once * length * read / (gpu.bandwidth_gbps * 1e9 * BANDWIDTH_SHARE)
    # A group's completions share their prompt: it is computed once.
    prefilled = count / batch.group_size * prompt
    speed = ways * gpu.tflops * 1e12 * ARITHMETIC_SHARE
    return decode_s + prefilled * 2 * shape.num_parameters / speed
