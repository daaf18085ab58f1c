"""Sizes of a step and its hardware demand, computed from the recipe."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.vllm_build import Device, choose_device, installed_build, mismatch
from mgrpo.config import ClusterConfig, RunConfig
from mgrpo.findings import CheckLine, counted
from mgrpo.plan.batch import layer_batches

GIB = 2**30
PROCESS_GIB = 1.0  # an engine's or a rank's libraries, before any model
ADAM_BYTES_PER_PARAMETER = 16  # float32 weights, gradients and two moments


def batch_lines(config: RunConfig) -> list[CheckLine]:
    """Completions per step, sequences per engine, tokens at most."""
    return [
        CheckLine(
            "ok",
            f"layer {batch.name}",
            f"{'' if depth == 0 else 'up to '}{batch.num_prompts:,} prompts x {batch.group_size} = "
            f"{batch.num_completions:,} completions a step, {batch.sequences_per_engine:,} per "
            f"engine on {counted(batch.num_engines, 'engine')}, at most {batch.max_tokens:,} "
            "tokens",
        )
        for depth, batch in enumerate(layer_batches(config))
    ]


def num_engines(config: RunConfig) -> int:
    """Number at the start of the run; elastic pools may grow further."""
    if config.engines.shared:
        return config.engines.num_shared_engines.min
    return sum(layer.num_engines.min for layer in config.layers)


def gpus_wanted(config: RunConfig) -> int:
    """GPUs of a run on device cuda: the engines', and one per learner rank; or one for both."""
    if config.cluster.takes_turns:
        return config.learner.num_ranks
    return num_engines(config) * config.engines.tensor_parallel_size + config.learner.num_ranks


def local_gpus() -> int:
    """GPUs of this machine, without importing torch; CUDA_VISIBLE_DEVICES narrows them."""
    present = len(list(Path("/dev").glob("nvidia[0-9]*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return present
    return min(present, len([device for device in visible.split(",") if device.strip()]))


def resource_lines(config: RunConfig, num_parameters: int | None) -> list[CheckLine]:
    """The run's GPUs or CPUs and memory, compared with this machine's."""
    gpus = local_gpus()
    build = installed_build() if config.cluster.starts_ray else None
    device = choose_device(config.cluster.device, num_gpus=gpus, build=build)
    lines = build_lines(config.cluster, device, build=build, gpus=gpus)
    if device == "cuda":
        return [*lines, gpu_line(config, gpus)]
    return [*lines, cpu_line(config), *memory_lines(config, num_parameters)]


def build_lines(
    cluster: ClusterConfig, device: str, *, build: Device | None, gpus: int
) -> list[CheckLine]:
    """Whether engines of the installed vLLM run on the device; no line if they do.

    A recipe for GPUs that is checked on a machine without any will run elsewhere.
    """
    if device == "cuda" and not gpus:
        return []
    problem = mismatch(device, build)
    if problem:
        return [CheckLine("fail", "vLLM", problem)]
    if gpus and build == "cpu" and cluster.device == "auto":
        return [
            CheckLine(
                "warn",
                "vLLM",
                "vLLM's CPU build is installed: the run uses the CPU and not this machine's "
                f"{counted(gpus, 'GPU')}. To use them: make setup EXTRA=gpu",
            )
        ]
    return []


def gpu_line(config: RunConfig, gpus: int) -> CheckLine:
    wanted = gpus_wanted(config)
    ranks = config.learner.num_ranks
    parts = (
        "an engine and a learner rank on each, in turn"
        if config.cluster.takes_turns
        else f"{num_engines(config)} engines x {config.engines.tensor_parallel_size} + "
        f"{counted(ranks, 'learner rank')}"
    )
    sum_text = f"{counted(wanted, 'GPU')}: {parts}"
    if not config.cluster.starts_ray or gpus >= wanted:
        return CheckLine("ok", "GPUs", sum_text)
    advice = "layers.N.num_engines, engines.tensor_parallel_size or learner.num_ranks"
    fewer = "" if config.cluster.takes_turns or not gpus else ", or share: cluster.colocate=auto"
    return CheckLine(
        "warn",
        "GPUs",
        f"{sum_text}. This machine has {gpus}: run on a machine with {wanted}, or lower "
        f"{advice}{fewer}.",
    )


def cpu_line(config: RunConfig) -> CheckLine:
    engines, ranks = num_engines(config), config.learner.num_ranks
    return CheckLine(
        "ok",
        "CPUs",
        f"{counted(engines, 'engine')}, {counted(ranks, 'learner rank')} and "
        f"{config.rewards.num_processes} reward processes take turns on "
        f"{counted(os.cpu_count() or 1, 'core')}",
    )


def memory_lines(config: RunConfig, num_parameters: int | None) -> list[CheckLine]:
    """A rough bound of the memory of a run on one machine's CPUs."""
    if num_parameters is None:
        return [CheckLine("warn", "memory", "not checked: the model's size is not known")]
    weights = num_parameters * (4 if config.model.dtype == "float32" else 2) / GIB
    engine = PROCESS_GIB + 2 * weights + config.engines.cpu_kv_cache_gib  # 2: vLLM packs a copy
    reference = num_parameters * 4 / GIB if config.objective.kl.weight > 0 else 0.0
    rank = PROCESS_GIB + num_parameters * ADAM_BYTES_PER_PARAMETER / GIB + reference
    wanted = num_engines(config) * engine + config.learner.num_ranks * rank
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    text = (
        f"about {wanted:.1f} GiB: {num_engines(config)} x {engine:.1f} for engines, "
        f"{config.learner.num_ranks} x {rank:.1f} for the learner; this machine has {here:.1f}"
    )
    if wanted <= here:
        return [CheckLine("ok", "memory", text)]
    advice = ". Use fewer engines, engines.shared: true, or a smaller model."
    return [CheckLine("warn", "memory", text + advice)]
