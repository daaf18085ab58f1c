"""Policies of the benchmark by their shapes alone: weights are random, nothing is downloaded.

What fits a device is worked out before anything is allocated, by the formulas of `mgrpo plan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.learner_update import Work
from learner.deepspeed_config import effective_zero_stage
from learner.prefix_tree import build_tree
from learner.rows import text
from mgrpo.config import LearnerConfig
from mgrpo.plan.learner_memory import RankMemory
from mgrpo.plan.memory import MemoryUse
from mgrpo.plan.shape import QWEN25, ModelShape, qwen25_settings, shape_of
from mgrpo.types import Completion

Dtype = Literal["float32", "bfloat16"]
ROOM = 0.95
"""Of the free memory: the allocator's fragments take the rest."""
LLAMA_8B: dict[str, Any] = {  # Llama 3.1, arXiv 2407.21783, table 3
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14_336,
    "vocab_size": 128_256,
    "tie_word_embeddings": False,
}
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "intermediate_size": 128,
        "vocab_size": 512,
        "tie_word_embeddings": False,
    },
    **{name: qwen25_settings(name) for name in QWEN25},
    "8B": LLAMA_8B,
    "8B-8layers": {**LLAMA_8B, "num_hidden_layers": 8},
}
"""By name, what a config.json says. The optimizer's states of a whole 8B fit few GPUs; a quarter of
its layers has the same matrices."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How a policy is trained on a device, and why it cannot be."""

    learner: dict[str, object]  # keys of the recipe's section
    memory: MemoryUse
    fault: str  # "" where it fits


def shape_by_name(size: str) -> ModelShape:
    return shape_of(SIZES[size], size, None)


def fit(size: str, dtype: Dtype, *, microbatch_tokens: int, free_bytes: int) -> Fit:
    """The fastest of a few settings whose memory fits, else the smallest with the reason."""
    for is_checkpointed, tokens in (
        (False, microbatch_tokens),
        (True, microbatch_tokens),
        (True, microbatch_tokens // 4),
    ):
        keys: dict[str, object] = {
            "dtype": dtype,
            "gradient_checkpointing": is_checkpointed,
            "microbatch_tokens": tokens,
        }
        found = Fit(keys, memory_of(size, dtype, keys), "")
        if found.memory.total <= ROOM * free_bytes:
            return found
    largest = found.memory.largest
    return Fit(
        found.learner,
        found.memory,
        f"needs {gib(found.memory.total)}, most for {largest.name} ({largest.how}), of "
        f"{gib(free_bytes)} that are free",
    )


def memory_of(size: str, dtype: Dtype, learner: dict[str, object]) -> MemoryUse:
    """Of one rank at its peak."""
    settings = LearnerConfig.model_validate(learner)
    is_bf16 = dtype == "bfloat16"
    rank = RankMemory(
        learner=settings,
        shape=shape_by_name(size),
        width=2 if is_bf16 else 4,
        stage=effective_zero_stage(settings, is_bf16=is_bf16),
    )
    return MemoryUse(
        (*rank.state_items(has_reference=False), *rank.work_items(packed_buffer_mib=0))
    )


def gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"


def update_flops(
    shape: ModelShape, completions: Sequence[Completion], *, is_shared: bool
) -> dict[str, float]:
    """Arithmetic of forward and backward, padding and recomputation left out.

    6 operations for each token and weight of a matrix (arXiv 2001.08361, section 2.1), 12 for each
    pair of a query and a key that it sees, head, layer and entry of a head; the output layer for
    trained tokens alone.

    Args:
        is_shared: common prefixes of rows are computed once.

    Returns:
        `flops` in all, and the `tokens` that the network reads.
    """
    inputs = [text(one.prompt_token_ids, one.token_ids).input_token_ids for one in completions]
    if is_shared:
        depths = build_tree(inputs)[0].depths
        tokens, pairs = len(depths), int((depths + 1).sum())
    else:
        tokens = sum(len(one) for one in inputs)
        pairs = sum(len(one) * (len(one) + 1) // 2 for one in inputs)
    heads = shape.num_heads * shape.head_dim
    attention = 2 * shape.hidden * (heads + shape.num_kv_heads * shape.head_dim)
    layer = attention + 3 * shape.hidden * shape.intermediate
    trained = sum(len(one.token_ids) for one in completions)
    flops = 6 * (tokens * shape.num_layers * layer + trained * shape.output_parameters)
    flops += 12 * shape.num_layers * heads * pairs
    return {"flops": float(flops), "tokens": float(tokens)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The step that every policy trains on: MGRPO's, attempts and corrections."""

    sizes: tuple[str, ...]
    work: Work
    microbatch_tokens: int


WORKLOADS = {
    "cuda": Workload(
        sizes=("0.5B", "1.5B", "3B", "8B-8layers", "7B", "8B"),
        work=Work(prompts=2, groups=(8, 4), tokens=512),
        microbatch_tokens=16_384,
    ),
    "cpu": Workload(
        sizes=("tiny",),
        work=Work(prompts=2, groups=(4, 2), tokens=12),
        microbatch_tokens=1024,
    ),
}
"""By device. The CPU's shows that everything runs; its times mean nothing."""
