"""Rates of engines and learner by the data sheet of a GPU and the shape of a model.

Decoding is bound by memory bandwidth (each decode step reads the weights once and every running
sequence's keys and values), prefill and training by arithmetic: 2 operations per parameter and
token forward, 6 with the backward pass (https://arxiv.org/abs/2001.08361, section 2.1), 8 with
recomputed activations, 2 more for the reference of a KL term. The reached shares of the data
sheet's peaks, the links and the fixed times are assumptions: `mgrpo simulate --measured` and
`--rates` replace them.
"""

from __future__ import annotations

from learner.deepspeed_config import effective_zero_stage, is_bfloat16
from mgrpo.plan.batch import layer_batches
from mgrpo.plan.engine_memory import EngineMemory, kv_bytes_per_token
from mgrpo.plan.gpus import GpuType
from mgrpo.plan.recipe import PlanRecipe
from mgrpo.plan.shape import ModelShape
from mgrpo.simulation.rates import EngineRates, LearnerRates, Rates

BANDWIDTH_SHARE = 0.6
ARITHMETIC_SHARE = 0.4
LENGTH_SHARE = 0.5
"""Prompts and completions are assumed to have this share of their maximum length."""
DECODE_OVERHEAD_S = 0.002
"""Of a decode step: the scheduler and the starts of its kernels."""
NODE_LINK = 400e9  # bytes per second of one GPU: NVLink
FAR_LINK = 50e9  # one 400 Gb/s adapter for each GPU
HOST_LINK = 25e9  # PCIe 4 x 16, pinned memory
CHECKSUM_RATE = 43e9  # bytes per second
BROADCAST_S = 1.0  # of a broadcast, whatever its size: pause, probe, versions
SWITCH_S = 1.0  # to put an engine to sleep, or to wake it
OPTIMIZER_S = 0.5
CHECKPOINT_RATE = 1e9  # bytes per second of one writer, with checksums


def roofline_rates(
    recipe: PlanRecipe, shape: ModelShape, gpu: GpuType, engine: EngineMemory, gpus_per_node: int
) -> Rates | None:
    """All rates of a recipe; None for a GPU whose speed is not known."""
    if gpu.tflops is None or gpu.bandwidth_gbps is None:
        return None
    arithmetic = gpu.tflops * 1e12 * ARITHMETIC_SHARE
    bandwidth = gpu.bandwidth_gbps * 1e9 * BANDWIDTH_SHARE
    ways, ranks, size = (
        recipe.engines.tensor_parallel_size,
        recipe.learner.num_ranks,
        shape.num_parameters,
    )
    weights = 2 * size
    token_s = 2 * size / (ways * arithmetic)
    link = NODE_LINK if ranks <= gpus_per_node else FAR_LINK
    away = weights + 12 * size / ranks  # states that leave the GPU in turns, see `turns.py`
    return Rates(
        engine=EngineRates(
            step_s=weights / ways / bandwidth + DECODE_OVERHEAD_S,
            arithmetic_s=token_s,
            context_s=kv_bytes_per_token(shape, ways) / bandwidth,
            prefill_s=token_s,
            max_running=max_running(recipe, engine),
        ),
        learner=LearnerRates(
            token_s=operations_per_token(recipe) * size / arithmetic,
            # Gradients are reduced in each micro-batch, and nothing hides it.
            microbatch_s=weights / link if ranks > 1 and stage_of(recipe) >= 2 else 0.0,
            update_s=OPTIMIZER_S + (weights / link if ranks > 1 else 0.0),
        ),
        weights_s=BROADCAST_S + weights * (1 / link + 2 / CHECKSUM_RATE),
        switch_s=SWITCH_S + away / HOST_LINK,
        checkpoint_s=12 * size / CHECKPOINT_RATE,
    )


def max_running(recipe: PlanRecipe, engine: EngineMemory) -> int:
    """Sequences at a time by engines.max_num_seqs and the cache, at mean lengths."""
    mean = max(
        batch.max_completion_tokens
        + (batch.max_sequence_tokens - batch.max_completion_tokens) / batch.group_size
        for batch in layer_batches(recipe)
    )
    in_cache = int(max(0, engine.cache_tokens) / (LENGTH_SHARE * mean))
    return max(1, min(recipe.engines.max_num_seqs, in_cache))


def operations_per_token(recipe: PlanRecipe) -> int:
    """Floating-point operations per parameter and token of an update."""
    objective = recipe.method.objective
    forward_and_backward = 8 if recipe.learner.gradient_checkpointing else 6
    operations = forward_and_backward * objective.updates_per_rollout
    if objective.optimizer_steps > 1:
        operations += 2  # log-probabilities before the first optimizer step
    if recipe.method.max_kl_weight > 0:
        operations += 2  # the reference
    return operations


def stage_of(recipe: PlanRecipe) -> int:
    is_bf16 = is_bfloat16(recipe.learner.dtype, recipe.model_dtype, "cuda")
    return effective_zero_stage(recipe.learner, is_bf16=is_bf16)
