"""The memory of one learner rank, for mixed-precision AdamW under DeepSpeed's ZeRO.

With P parameters on N ranks, in bytes per parameter:

    stage   weights (bf16)   gradients (float32 sums)   optimizer: master, two moments (float32)
    0       2                4                          12
    1       2                4                          12 / N
    2       2                4 / N                      12 / N
    3       2 / N            4 / N                      12 / N

ZeRO: https://arxiv.org/abs/1910.02054, section 5; its 2 bytes of gradients are 4 here because
the learner adds up micro-batches in float32 (`data_types.grad_accum_dtype`). In float32 training
weights and gradients have 4 bytes each; stage 0 then has no master copy.

Activations follow the method of https://arxiv.org/abs/2205.05198 (count what each operation
keeps for its backward), for a gated MLP, grouped-query attention by a fused kernel, and Hugging
Face's RMSNorm, which keeps a float32 copy. Per token and layer, in 16 bit, with hidden D, heads
h, key-value heads k, head size d and MLP width F:

    16 D  norms and their inputs     2 (h + 2k) d  q, k, v       2 (h + k) d  q, k rotated
    2 h d  attention's output        8 F  gate, up, activation, product

With gradient checkpointing a layer keeps only its input (2 D), and one layer at a time is
computed again, with as much once more for its gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from learner.deepspeed_config import effective_zero_stage, is_bfloat16
from mgrpo.config import LearnerConfig
from mgrpo.plan.memory import CONTEXT_BYTES, MIB, MemoryItem, MemoryUse
from mgrpo.plan.recipe import PlanRecipe
from mgrpo.plan.shape import ModelShape

REDUCE_BUCKET = 500_000_000  # DeepSpeed's defaults, in elements
LIVE_PARAMETERS = 1_000_000_000
GATHER_BUCKET_MIB = 256  # see learner/deepspeed_learner.py
LOGIT_BYTES = 12  # per entry of a chunk: 16-bit logits, their float32 copy, and a work copy


def learner_memory(recipe: PlanRecipe, shape: ModelShape) -> MemoryUse:
    """One rank's memory at its peak, in the middle of an update."""
    is_bf16 = is_bfloat16(recipe.learner.dtype, recipe.model_dtype, "cuda")
    rank = RankMemory(
        learner=recipe.learner,
        shape=shape,
        width=2 if is_bf16 else 4,
        stage=effective_zero_stage(recipe.learner, is_bf16=is_bf16),
    )
    states = rank.state_items(has_reference=recipe.method.max_kl_weight > 0)
    on_host = tuple(one for one in states if one.name in rank.on_host)
    items = [one for one in states if one.name not in rank.on_host]
    items += rank.work_items(packed_buffer_mib=recipe.packed_buffer_mib)
    return MemoryUse(tuple(item for item in items if item.num_bytes), on_host)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """What the memory of one learner rank follows from."""

    learner: LearnerConfig
    shape: ModelShape
    width: int  # bytes of a weight as it is computed with
    stage: int  # of ZeRO, as DeepSpeed runs it

    def state_items(self, *, has_reference: bool) -> list[MemoryItem]:
        """What stays from step to step, wherever: weights, gradients, optimizer, the reference."""
        size, ranks = self.shape.num_parameters, self.learner.num_ranks
        master = 4 if self.width == 2 or self.stage > 0 else 0
        share = [1 if self.stage < limit else ranks for limit in (3, 2, 1)]
        items = [
            item("weights", size, self.width, share[0]),
            item("gradients", size, 4, share[1]),
            item("optimizer", size, master + 8, share[2]),
        ]
        if has_reference:
            items.append(item("reference", size, self.width, share[0]))
        return items

    @property
    def on_host(self) -> set[str]:
        """The states that are kept in host memory, the optimizer with sharded gradients."""
        names = set()
        if offloads(self.learner, "offload_optimizer"):
            names |= {"optimizer", "gradients"} if self.stage >= 2 else {"optimizer"}
        if offloads(self.learner, "offload_param") and self.stage == 3:
            names.add("weights")
        return names

    def work_items(self, *, packed_buffer_mib: int) -> list[MemoryItem]:
        """Temporary memory of an update."""
        width, shape, stage = self.width, self.shape, self.stage
        tokens = self.learner.microbatch_tokens
        positions = min(self.learner.logprob_chunk_tokens, tokens)
        bucket = int(zero_setting(self.learner, "reduce_bucket_size", REDUCE_BUCKET))
        live = int(zero_setting(self.learner, "stage3_max_live_parameters", LIVE_PARAMETERS))
        gathered = min(live, shape.num_parameters) * width if stage == 3 else 0
        transfer = 2 * packed_buffer_mib + (GATHER_BUCKET_MIB if stage == 3 else 0)
        return [
            MemoryItem(
                "activations",
                activation_bytes(self.learner, shape, width),
                activation_words(self.learner),
            ),
            MemoryItem(
                "logits",
                positions * shape.vocabulary * LOGIT_BYTES,
                f"{positions:,} positions x {shape.vocabulary:,} x {LOGIT_BYTES} bytes",
            ),
            MemoryItem(
                "output layer's gradient",
                shape.output_parameters * (4 + width),
                f"vocabulary x hidden x {4 + width} bytes",
            ),
            MemoryItem(
                "gathered weights", gathered, f"at most {live:,} parameters at a time (ZeRO-3)"
            ),
            MemoryItem(
                "reduction buffer", bucket * width if stage else 0, f"{bucket:,} x {width} bytes"
            ),
            MemoryItem("transfer buffers", transfer * MIB, f"{transfer} MiB, on rank 0"),
            MemoryItem("CUDA, NCCL", CONTEXT_BYTES, "an estimate"),
        ]


def item(name: str, size: int, width: int, ranks: int) -> MemoryItem:
    shared = f" / {ranks} ranks" if ranks > 1 else ""
    return MemoryItem(name, size * width // ranks, f"{width} bytes x parameters{shared}")


def layer_bytes_per_token(shape: ModelShape, width: int) -> int:
    """Activations that one layer keeps for its backward pass, per token."""
    heads, kv = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    in_16_bit = (
        16 * shape.hidden
        + 2 * (heads + 2 * kv)
        + 2 * (heads + kv)
        + 2 * heads
        + 8 * shape.intermediate
    )
    return in_16_bit * width // 2


def activation_bytes(learner: LearnerConfig, shape: ModelShape, width: int) -> int:
    one_layer = layer_bytes_per_token(shape, width)
    if learner.gradient_checkpointing:
        per_token = shape.num_layers * shape.hidden * width + 2 * one_layer
    else:
        per_token = shape.num_layers * one_layer
    return learner.microbatch_tokens * per_token


def activation_words(learner: LearnerConfig) -> str:
    tokens = f"{learner.microbatch_tokens:,} tokens x"
    if learner.gradient_checkpointing:
        return f"{tokens} (inputs of all layers + one layer twice)"
    return f"{tokens} all layers; learner.gradient_checkpointing keeps inputs only"


def zero_setting(learner: LearnerConfig, key: str, default: object) -> Any:
    """A key of the recipe's own DeepSpeed section."""
    return learner.deepspeed.get("zero_optimization", {}).get(key, default)


def offloads(learner: LearnerConfig, key: str) -> bool:
    """Whether the recipe's DeepSpeed section offloads something to host memory."""
    device = (zero_setting(learner, key, None) or {}).get("device", "none")
    return device in ("cpu", "nvme")
