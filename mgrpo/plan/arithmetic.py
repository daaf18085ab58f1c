"""Sizes of a step and its hardware demand, computed from the recipe."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.allocations import PlacementRecipe
from cluster.vllm_build import Device, choose_device, installed_build, mismatch
from mgrpo.config import ClusterConfig
from mgrpo.findings import CheckLine, counted
from mgrpo.plan.batch import layer_batches
from mgrpo.plan.recipe import PlanRecipe

GIB = 2**30
PROCESS_GIB = 1.0  # an engine's or a rank's libraries, before any model
ADAM_BYTES_PER_PARAMETER = 16  # float32 weights, gradients and two moments


def batch_lines(recipe: PlanRecipe) -> list[CheckLine]:
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
        for depth, batch in enumerate(layer_batches(recipe))
    ]


def gpus_wanted(recipe: PlacementRecipe) -> int:
    """GPUs of a run on device cuda: the engines', and one per learner rank; or one for both."""
    if recipe.cluster.takes_turns:
        return recipe.learner.num_ranks
    return recipe.num_engines * recipe.engines.tensor_parallel_size + recipe.learner.num_ranks


def local_gpus() -> int:
    """GPUs of this machine, without importing torch; CUDA_VISIBLE_DEVICES narrows them."""
    present = len(list(Path("/dev").glob("nvidia[0-9]*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return present
    return min(present, len([device for device in visible.split(",") if device.strip()]))


def resource_lines(recipe: PlanRecipe, num_parameters: int | None) -> list[CheckLine]:
    """The run's GPUs or CPUs and memory, compared with this machine's."""
    gpus = local_gpus()
    build = installed_build() if recipe.cluster.starts_ray else None
    device = choose_device(recipe.cluster.device, num_gpus=gpus, build=build)
    lines = build_lines(recipe.cluster, device, build=build, gpus=gpus)
    if device == "cuda":
        return [*lines, gpu_line(recipe, gpus)]
    return [*lines, cpu_line(recipe), *memory_lines(recipe, num_parameters)]


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


def gpu_line(recipe: PlanRecipe, gpus: int) -> CheckLine:
    wanted = gpus_wanted(recipe)
    ranks = recipe.learner.num_ranks
    parts = (
        "an engine and a learner rank on each, in turn"
        if recipe.cluster.takes_turns
        else f"{recipe.num_engines} engines x {recipe.engines.tensor_parallel_size} + "
        f"{counted(ranks, 'learner rank')}"
    )
    sum_text = f"{counted(wanted, 'GPU')}: {parts}"
    if not recipe.cluster.starts_ray or gpus >= wanted:
        return CheckLine("ok", "GPUs", sum_text)
    advice = "layers.N.num_engines, engines.tensor_parallel_size or learner.num_ranks"
    fewer = "" if recipe.cluster.takes_turns or not gpus else ", or share: cluster.colocate=auto"
    return CheckLine(
        "warn",
        "GPUs",
        f"{sum_text}. This machine has {gpus}: run on a machine with {wanted}, or lower "
        f"{advice}{fewer}.",
    )


def cpu_line(recipe: PlanRecipe) -> CheckLine:
    engines, ranks = recipe.num_engines, recipe.learner.num_ranks
    return CheckLine(
        "ok",
        "CPUs",
        f"{counted(engines, 'engine')}, {counted(ranks, 'learner rank')} and "
        f"{recipe.num_reward_processes} reward processes take turns on "
        f"{counted(os.cpu_count() or 1, 'core')}",
    )


def cpu_engine_gib(recipe: PlanRecipe, num_parameters: int) -> float:
    """Memory of one CPU engine, roughly."""
    weights = num_parameters * (4 if recipe.model_dtype == "float32" else 2) / GIB
    return PROCESS_GIB + 2 * weights + recipe.engines.cpu_kv_cache_gib  # 2: vLLM packs a copy


def memory_here_gib() -> float:
    """Of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB


def memory_lines(recipe: PlanRecipe, num_parameters: int | None) -> list[CheckLine]:
    """A rough bound of the memory of a run on one machine's CPUs."""
    if num_parameters is None:
        return [CheckLine("warn", "memory", "not checked: the model's size is not known")]
    engine = cpu_engine_gib(recipe, num_parameters)
    reference = num_parameters * 4 / GIB if recipe.method.max_kl_weight > 0 else 0.0
    rank = PROCESS_GIB + num_parameters * ADAM_BYTES_PER_PARAMETER / GIB + reference
    wanted = recipe.num_engines * engine + recipe.learner.num_ranks * rank
    here = memory_here_gib()
    text = (
        f"about {wanted:.1f} GiB: {recipe.num_engines} x {engine:.1f} for engines, "
        f"{recipe.learner.num_ranks} x {rank:.1f} for the learner; this machine has {here:.1f}"
    )
    if wanted <= here:
        return [CheckLine("ok", "memory", text)]
    advice = ". Use fewer engines (engines.shared, engines.num_shared_engines), or a smaller model."
    return [CheckLine("warn", "memory", text + advice)]
