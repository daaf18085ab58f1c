"""Sampling, and the vLLM engines that do it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from mgrpo.config.base import StrictConfig


class DynamicSamplingConfig(StrictConfig):
    """Only problems whose first attempts are neither all right nor all wrong (DAPO,
    arXiv 2503.14476), sampling more until the step is full."""

    max_rounds: PositiveInt = 10
    """Rounds of sampling at most; each asks for as many problems as are still missing."""
    when_exhausted: Literal["train", "stop"] = "train"
    """After the last round with too few: train on what there is, or stop the run."""


class SamplingConfig(StrictConfig):
    """How completions are drawn while training.

    There is no top_p and no top_k: truncated sampling makes the recorded log-probabilities
    those of another distribution than the one that is trained (TRL#4772).
    """

    temperature: PositiveFloat = 1.0
    """The learner divides its logits by the same number."""
    dynamic: DynamicSamplingConfig | None = None
    """Null: every problem drawn is trained on."""


class EnginesConfig(StrictConfig):
    """The vLLM engines."""

    shared: bool = False
    """True: one pool of engines serves every layer. False: each layer has its own."""
    num_shared_engines: PositiveInt = 1
    """Engines in the pool when `shared` is true."""
    tensor_parallel_size: PositiveInt = 1
    """GPUs per engine."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: the policy's own (model.dtype)."""
    max_model_len: PositiveInt | None = None
    """Context in tokens. None: as long as the longest layer's prompt plus completion needs."""
    max_num_seqs: PositiveInt = 256
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
    extra_args: dict[str, Any] = Field(default_factory=dict)
    """Passed to vLLM's AsyncEngineArgs as they are."""
