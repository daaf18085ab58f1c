"""The layout of engines and learner on one machine, where a recipe leaves it open.

On GPUs, with `cluster.colocate: auto`:

    as many GPUs as it asks for    every layer's engines and the learner have their own
    fewer                          one pool of engines serves every layer
    too few for that               engines and learner take turns

On a CPU, with `engines.shared: null`: one pool of engines serves every layer. Layers sample one
after the other for the most part, so that an engine of one layer alone would often be idle.

The choice is printed, and recorded in the run's config.yaml.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from cluster.allocations import placement_recipe
from cluster.vllm_build import choose_device, installed_build
from mgrpo.config import ModelConfig, RunConfig
from mgrpo.config.engines import ONE_ENGINE
from mgrpo.config.explain import explain
from mgrpo.errors import ConfigError, HubUnreachable, ModelError
from mgrpo.findings import counted
from mgrpo.plan.arithmetic import cpu_engine_gib, local_gpus, memory_here_gib
from mgrpo.plan.batch import layer_batches
from mgrpo.plan.recipe import plan_recipe
from mgrpo.plan.shape import find_shape

ENGINES_SHARE = 0.5
"""Of a machine's memory, for a pool of CPU engines."""
WORTH_AN_ENGINE = 64
"""Completions of a layer in a step. With fewer, an engine's fixed time of a decoding step (5 of 16
ms at 64 sequences) and its start cost more than it brings."""


@dataclass(frozen=True, slots=True)
class Cores:
    """What a machine without GPUs has for engines."""

    number: int
    memory_gib: float


def laid_out(
    config: RunConfig, num_gpus: int, *, with_learner: bool = True
) -> tuple[RunConfig, str]:
    """A recipe with its layout chosen, and the choice in words.

    Args:
        num_gpus: of the run's one machine. 0, also for a cluster: no GPU is shared.
        with_learner: False for an evaluation, which has engines only.

    Returns:
        The recipe; unchanged and with "" if nothing was open.

    Raises:
        ConfigError: engines and learner would have to take turns, and another key forbids it.
    """
    if config.cluster.colocate != "auto":
        return config, ""
    ranks = config.learner.num_ranks if with_learner else 0
    ways = config.engines.tensor_parallel_size
    wanted = placement_recipe(config).num_engines * ways + ranks
    num_shared = (num_gpus - ranks) // ways
    found = f"{counted(num_gpus, 'GPU')} where the recipe requests {wanted}"
    if num_gpus == 0 or num_gpus >= wanted:
        said = f"engines and learner on separate GPUs, {wanted} in all" if num_gpus else ""
        return changed(config, colocate=False), said
    if num_shared >= 1:
        shared = {"shared": True, "num_shared_engines": num_shared}
        said = f"{found}: {counted(num_shared, 'engine')} for all layers (engines.shared)"
        return changed(config, colocate=False, engines=shared), said
    ranks = min(max(1, ranks), num_gpus)
    return (
        changed(
            config,
            colocate=True,
            engines={"shared": True, "num_shared_engines": ranks},
            learner={"num_ranks": ranks, "zero_stage": 2},
        ),
        f"{found}: an engine for all layers and a learner rank on each of "
        f"{counted(ranks, 'GPU')}, in turn (cluster.colocate)",
    )


def laid_out_here(config: RunConfig, *, with_learner: bool = True) -> tuple[RunConfig, str]:
    """The same for the GPUs or the cores of this machine, where the run has a Ray of its own.

    A cluster's GPUs and cores are not known here: on a cluster nothing is shared.
    """
    if not config.cluster.starts_ray:
        return laid_out(config, 0, with_learner=with_learner)
    gpus = local_gpus()
    device = choose_device(config.cluster.device, num_gpus=gpus, build=installed_build())
    if device == "cuda":
        return laid_out(config, gpus, with_learner=with_learner)
    config, _ = laid_out(config, 0, with_learner=with_learner)
    return pooled(config, Cores(os.cpu_count() or 1, memory_here_gib()))


def pooled(config: RunConfig, cores: Cores) -> tuple[RunConfig, str]:
    """A recipe with one pool of engines on a machine's cores, and the choice in words.

    Returns:
        The recipe; unchanged and with "" if it has a layout of its own.
    """
    engines = config.engines
    has_pools = engines.shared is None and any(
        layer.num_engines != ONE_ENGINE for layer in config.layers
    )
    is_decided = engines.shared and engines.num_shared_engines is not None
    if config.cluster.takes_turns or engines.shared is False or has_pools or is_decided:
        return config, ""
    count = engines.num_shared_engines or most_engines(config, cores)
    pool = {"shared": True, "num_shared_engines": count}
    chosen = changed(config, colocate=False, engines=pool)
    number = chosen.engines.pool.min
    threads = engines.num_threads or max(1, cores.number // number)
    return chosen, (
        f"{counted(number, 'engine')} for all layers (engines.shared), "
        f"{counted(threads, 'thread')} each, on {counted(cores.number, 'core')}"
    )


def most_engines(config: RunConfig, cores: Cores) -> int:
    """CPU engines that cores, memory and the work of a step allow; at least one."""
    recipe = plan_recipe(config)
    engine_gib = cpu_engine_gib(recipe, num_parameters(config.model))
    completions = max(batch.num_completions for batch in layer_batches(recipe))
    bounds = (
        cores.number // (config.engines.num_threads or 1),
        int(ENGINES_SHARE * cores.memory_gib / engine_gib),
        -(-completions // WORTH_AN_ENGINE),
    )
    return max(1, min(bounds))


def num_parameters(model: ModelConfig) -> int:
    """Of a model; 0 where it is not available, of which the check of the model tells."""
    try:
        return find_shape(model.path, model.revision).num_parameters
    except (HubUnreachable, ModelError):
        return 0


def changed(
    config: RunConfig,
    *,
    colocate: bool,
    engines: Mapping[str, object] | None = None,
    learner: Mapping[str, object] | None = None,
) -> RunConfig:
    """The recipe with another layout, checked like any other."""
    tree = config.model_dump(mode="json")
    tree["cluster"]["colocate"] = colocate
    tree["engines"] |= engines or {}
    tree["learner"] |= learner or {}
    if engines:
        for layer in tree["layers"]:
            layer["num_engines"] = 1  # no longer has an effect
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        source = "the recipe, laid out for few GPUs (cluster.colocate: auto),"
        raise ConfigError(explain(error, RunConfig), source=source) from error
