"""The memory of one engine's GPU, and the capacity of its key-value cache.

vLLM takes `gpu_memory_utilization` of the GPU for itself: weights, working memory, and all the
rest for keys and values. A token's keys and values take 2 x layers x kv heads x head size x 2
bytes (https://arxiv.org/abs/2309.06180, section 1), shared out over the tensor-parallel ranks
as far as there are kv heads. The receive buffers of weight broadcasts are outside that share.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.engine import BATCHED_TOKENS
from mgrpo.config import EnginesConfig
from mgrpo.plan.batch import context_tokens
from mgrpo.plan.gpus import GpuType
from mgrpo.plan.memory import CONTEXT_BYTES, GIB, MIB, MemoryItem, MemoryUse
from mgrpo.plan.recipe import PlanRecipe
from mgrpo.plan.shape import ModelShape

GRAPH_BYTES = GIB  # captured CUDA graphs: an estimate


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """One GPU of an engine."""

    use: MemoryUse
    cache_tokens: int  # that the key-value cache holds; 0 or less: not even the weights fit
    context_tokens: int

    @property
    def cache_sequences(self) -> int:
        """Sequences of full length that the cache holds at the same time."""
        return max(0, self.cache_tokens) // self.context_tokens


def engine_memory(recipe: PlanRecipe, shape: ModelShape, gpu: GpuType) -> EngineMemory:
    """The memory use of each of an engine's GPUs."""
    ways = recipe.engines.tensor_parallel_size
    dtype = recipe.engines.dtype_for(recipe.model_dtype)
    width = 4 if dtype == "float32" else 2
    weights = shape.num_parameters * width // ways
    working = working_bytes(recipe.engines, shape, width)
    budget = int(gpu.memory_bytes * recipe.engines.gpu_memory_utilization)
    cache = budget - weights - working - CONTEXT_BYTES
    buffers = 2 * recipe.packed_buffer_mib * MIB + shape.layer_parameters * width // ways
    per_token = kv_bytes_per_token(shape, ways) * width // 2
    tokens = cache // per_token
    graphs = 0 if recipe.engines.enforce_eager else GRAPH_BYTES
    shared = f" / {ways} GPUs" if ways > 1 else ""
    items = (
        MemoryItem("weights", weights, f"{width} bytes x parameters{shared}"),
        MemoryItem(
            "KV cache",
            max(0, cache),
            f"the rest of {recipe.engines.gpu_memory_utilization:g} of the GPU: {max(0, tokens):,} "
            f"tokens of {per_token:,} bytes",
        ),
        MemoryItem(
            "working memory", working, f"{batched_tokens(recipe.engines):,} tokens and the sampler"
        ),
        MemoryItem("CUDA graphs", graphs, "an estimate; none with engines.enforce_eager"),
        MemoryItem(
            "transfer buffers",
            buffers,
            f"2 x {recipe.packed_buffer_mib} MiB and one layer's weights",
        ),
        MemoryItem("CUDA, NCCL", CONTEXT_BYTES, "an estimate"),
    )
    used = MemoryUse(tuple(item for item in items if item.num_bytes))
    return EngineMemory(used, tokens, context_tokens(recipe))


def kv_bytes_per_token(shape: ModelShape, ways: int) -> int:
    """Of one token on one GPU, 16 bit; with more GPUs than kv heads each head is on several."""
    heads_here = max(1, shape.num_kv_heads // ways)
    return shape.kv_bytes_per_token * heads_here // shape.num_kv_heads


def working_bytes(engines: EnginesConfig, shape: ModelShape, width: int) -> int:
    """A step's activations, and the sampler's float32 logits with one copy."""
    ways = engines.tensor_parallel_size
    per_token = (2 * shape.intermediate // ways + 6 * shape.hidden) * width
    sampler = engines.max_num_seqs * shape.vocabulary * 2 * 4
    return batched_tokens(engines) * per_token + sampler


def batched_tokens(engines: EnginesConfig) -> int:
    return int(engines.extra_args.get("max_num_batched_tokens", BATCHED_TOKENS))
