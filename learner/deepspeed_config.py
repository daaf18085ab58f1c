"""The DeepSpeed configuration of a recipe: plain dictionaries, no DeepSpeed import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgrpo.config import LearnerConfig
from mgrpo.errors import ConfigError, ConfigFault
from mgrpo.records.json_object import JsonObject

OWNED_KEYS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "managed_gradient_accumulation",
    "gradient_allreduce_op",
    "gradient_clipping",
    "optimizer",
    "scheduler",
    "fp16",
    "bf16",
)
"""Keys that decide how gradients are scaled or in which type: the recipe has its own for them."""

FLOAT32_BUFFERS = ("inv_freq", "e_score_correction_bias")
"""Buffers that stay in float32 beside bfloat16 weights, as engines have them. Under ZeRO-3
DeepSpeed would round them: rotary frequencies, which are then radians off at position 1000, and the
biases by which mixtures of experts choose."""


def is_bfloat16(learner_dtype: str, model_dtype: str, device: str) -> bool:
    """Does the learner compute in bfloat16 on this device ("cpu" or "cuda")?

    Args:
        learner_dtype: `learner.dtype`: "auto", "float32" or "bfloat16".
        model_dtype: `model.dtype`, which "auto" follows on a GPU.
    """
    if learner_dtype == "auto":
        return device == "cuda" and model_dtype == "bfloat16"
    return learner_dtype == "bfloat16"


def effective_zero_stage(config: LearnerConfig, *, is_bf16: bool) -> int:
    """DeepSpeed's plain data parallelism has no float32 gradient sums for bfloat16 weights, so
    stage 0 becomes stage 1 there: the same numbers, with the optimizer's state shared out."""
    return 1 if is_bf16 and config.zero_stage == 0 else config.zero_stage


def engine_config(config: LearnerConfig, *, num_ranks: int, is_bf16: bool) -> JsonObject:
    """The training engine's configuration, with the recipe's own `deepspeed` section on top.

    Raises:
        ConfigError: that section sets a key which would change the gradient's meaning.
    """
    refuse_owned_keys(config.deepspeed)
    stage = effective_zero_stage(config, is_bf16=is_bf16)
    ours: JsonObject = {
        "train_batch_size": num_ranks,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Each backward adds up, undivided; step() alone is the boundary.
        "managed_gradient_accumulation": False,
        # Stage 0 is clipped by the learner: DeepSpeed does not report the norm there.
        "gradient_clipping": 0.0 if stage == 0 else config.max_grad_norm,
        "zero_allow_untested_optimizer": True,
        # Its CPU Adam is compiled at start-up, which needs a compiler.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
        # Stage 3 with overlapping reductions is not supported with unmanaged accumulation.
        "zero_optimization": {"stage": stage, "overlap_comm": False},
    }
    if is_bf16:
        ours["bf16"] = {"enabled": True}
        ours["data_types"] = {
            "grad_accum_dtype": "fp32",
            "keep_in_fp32_modules": list(FLOAT32_BUFFERS),
        }
    return merged(ours, config.deepspeed)


def reference_config(config: LearnerConfig, *, num_ranks: int, is_bf16: bool) -> JsonObject:
    """Shards a frozen model's weights as the policy's are (ZeRO-3), without an optimizer."""
    whole = engine_config(config, num_ranks=num_ranks, is_bf16=is_bf16)
    offload = {"offload_optimizer": None}
    return whole | {"zero_optimization": whole["zero_optimization"] | offload}


def refuse_owned_keys(section: Mapping[str, object]) -> None:
    faults = [
        ConfigFault(
            path=f"learner.deepspeed.{key}",
            value=str(section[key]),
            reason="the learner sets this itself, since it decides what the gradient is.",
            suggestion="Use the keys of `learner` instead.",
        )
        for key in OWNED_KEYS
        if key in section
    ]
    if faults:
        raise ConfigError(faults)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> JsonObject:
    """`over` on top of `base`, section by section."""
    result = dict(base)
    for key, value in over.items():
        both_sections = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both_sections else value
    return result
