"""Sampling and the vLLM engines."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_serializer, model_validator

from mgrpo.config.base import RelationError, StrictConfig
from mgrpo.config.extra_args import extra_args_faults
from mgrpo.errors import ConfigFault
from mgrpo.records.json_object import JsonObject

Dtype = Literal["float32", "bfloat16", "float16"]
MIN_TEMPERATURE = 0.01  # vLLM's minimum: lower values are raised to this
MAX_SEQUENCES = 8192  # of one forward pass: as many tokens, one of each


class SamplingConfig(StrictConfig):
    """Sampling of completions in training.

    There is no top_p and no top_k: truncated sampling makes the recorded log-probabilities
    those of another distribution than the trained one (TRL#4772).
    """

    temperature: float = Field(default=1.0, ge=MIN_TEMPERATURE)
    """The learner divides its logits by the same number."""


class EngineRange(StrictConfig):
    """A range of engine counts. One number stands for a fixed count."""

    min: PositiveInt
    """Engines at the start, and the minimum."""
    max: PositiveInt
    """Maximum engines while the pool is the bottleneck (see cluster.elastic)."""

    @model_validator(mode="before")
    @classmethod
    def from_number(cls, value: object) -> object:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return {"min": value, "max": value} if is_number else value

    @model_validator(mode="after")
    def check_order(self) -> EngineRange:
        if self.max < self.min:
            reason = f"must not be below min, which is {self.min}."
            raise RelationError([ConfigFault("max", str(self.max), reason)])
        return self

    @model_serializer
    def to_plain(self) -> int | dict[str, int]:
        return {"min": self.min, "max": self.max} if self.is_elastic else self.min

    @property
    def is_elastic(self) -> bool:
        return self.max > self.min


ONE_ENGINE = EngineRange(min=1, max=1)


class EnginesConfig(StrictConfig):
    """The vLLM engines."""

    shared: bool | None = None
    """True: one pool of engines serves every layer. False: each layer has its own. Null: true where
    the run computes on the CPU of one machine, unless a layer's `num_engines` is set; else false.
    """
    num_shared_engines: EngineRange | None = None
    """Engines in the pool when `shared` is true: a number, or {min: 1, max: 4} for a pool that
    grows while it is the bottleneck and shrinks when it is idle. Null: on the CPU of one machine,
    as many as it has cores for `num_threads` (null: 1) each, memory for (half of it), and as a step
    has 64 completions for; else 1."""
    tensor_parallel_size: PositiveInt = 1
    """GPUs per engine."""
    dtype: Literal["auto", Dtype] = "auto"
    """auto: the policy's own (model.dtype)."""
    max_model_len: PositiveInt | None = None
    """Context in tokens. None: as long as the longest layer's prompt plus completion needs."""
    max_num_seqs: int = Field(default=256, ge=1, le=MAX_SEQUENCES)
    """Sequences that an engine samples at the same time."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    enforce_eager: bool | None = None
    """Skip compilation and CUDA graphs. None: true on a CPU (starts in half the time)."""
    cpu_kv_cache_gib: PositiveInt = 1
    """Memory for the key-value cache of each CPU engine, in GiB."""
    num_cpus: PositiveFloat = 1.0
    """CPUs that Ray reserves for each engine."""
    num_threads: PositiveInt | None = None
    """Compute threads of each CPU engine. None: the machine's cores divided by the engines."""
    extra_args: JsonObject = Field(default_factory=dict)
    """Passed to vLLM's AsyncEngineArgs unchanged, for settings without a key in mgrpo. Arguments
    that mgrpo sets itself are refused."""

    def dtype_for(self, model_dtype: Dtype) -> Dtype:
        """Of an engine's weights, where those of the policy are of `model_dtype`."""
        return model_dtype if self.dtype == "auto" else self.dtype

    @property
    def pool(self) -> EngineRange:
        """Engines that serve every layer, if `shared` is true."""
        return self.num_shared_engines or ONE_ENGINE

    @model_validator(mode="after")
    def check_extra_args(self) -> EnginesConfig:
        if faults := list(extra_args_faults(self.extra_args)):
            raise RelationError(faults)
        return self
