"""The layout on GPUs if a recipe leaves it open (`cluster.colocate: auto`).

    as many GPUs as it asks for    every layer's engines and the learner have their own
    fewer                          one pool of engines serves every layer
    too few for that               engines and learner take turns

The choice is printed, and recorded in the run's config.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cluster.allocations import placement_recipe
from cluster.vllm_build import choose_device, installed_build
from mgrpo.config import RunConfig
from mgrpo.config.explain import explain
from mgrpo.errors import ConfigError
from mgrpo.findings import counted
from mgrpo.plan.arithmetic import local_gpus


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
    ranks, ways = config.learner.num_ranks * with_learner, config.engines.tensor_parallel_size
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
    """The same for the GPUs of this machine, where the run has a Ray of its own.

    A cluster's number of GPUs is not known here: on a cluster no GPU is shared.
    """
    gpus = local_gpus() if config.cluster.starts_ray else 0
    device = choose_device(config.cluster.device, num_gpus=gpus, build=installed_build())
    return laid_out(config, gpus if device == "cuda" else 0, with_learner=with_learner)


def changed(
    config: RunConfig,
    *,
    colocate: bool,
    engines: Mapping[str, Any] | None = None,
    learner: Mapping[str, Any] | None = None,
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
