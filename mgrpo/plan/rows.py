"""The plan's table: every GPU with its processes and memory use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.fit import Fit, Node, Place
from mgrpo.plan.engine_memory import EngineMemory
from mgrpo.plan.hardware import Hardware
from mgrpo.plan.memory import MemoryUse
from mgrpo.plan.recipe import PlanRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRow:
    """One GPU and its processes."""

    node: str
    gpu: int
    allocation: str  # "" for an idle one; "engine-0, learner" for one that two share in turn
    role: str
    has_learner: bool
    used_bytes: int
    memory_bytes: int
    is_brought: bool  # its node must first be added by the autoscaler


@dataclass(frozen=True, slots=True)
class GpuUse:
    """Peak bytes of one GPU, by its process."""

    learner: int
    engine: int
    both: int  # in turn

    def of(self, owners: Sequence[Place]) -> int:
        if len(owners) > 1:
            return self.both
        return sum(self.learner if place.allocation.is_learner else self.engine for place in owners)


def gpu_use(learner: MemoryUse, engine: EngineMemory, turns: MemoryUse | None) -> GpuUse:
    return GpuUse(learner.total, engine.use.total, turns.largest.num_bytes if turns else 0)


def gpu_rows(
    recipe: PlanRecipe, found: Fit, nodes: Sequence[Node], hardware: Hardware, use: GpuUse
) -> list[GpuRow]:
    """Every GPU of every node in order, empty ones too; a node that may come only if it is used."""
    owners: dict[tuple[str, int], list[Place]] = {}
    for place in found.places:
        for gpu in place.gpus:
            owners.setdefault((place.node, gpu), []).append(place)
    present, used = {node.name for node in hardware.nodes}, {place.node for place in found.places}
    rows = []
    for node in nodes:
        if node.name not in present | used:
            continue
        for gpu in range(int(node.resources.get("GPU", 0))):
            here = owners.get((node.name, gpu), [])
            rows.append(
                GpuRow(
                    node=node.name,
                    gpu=gpu,
                    allocation=", ".join(place.allocation.name for place in here),
                    role=", ".join(role_of(recipe, place, gpu) for place in here),
                    has_learner=any(place.allocation.is_learner for place in here),
                    used_bytes=use.of(here),
                    memory_bytes=hardware.gpus[node.name].memory_bytes,
                    is_brought=node.name not in present,
                )
            )
    return rows


def role_of(recipe: PlanRecipe, place: Place, gpu: int) -> str:
    """A GPU's task in words."""
    if place.allocation.is_learner:
        return f"rank {place.bundle} of {len(place.allocation.bundles)}"
    layers = " and ".join(recipe.layers[number - 1].name for number in place.allocation.layers)
    if len(place.gpus) == 1:
        return f"samples {layers}"
    return f"samples {layers}, part {place.gpus.index(gpu) + 1} of {len(place.gpus)}"
