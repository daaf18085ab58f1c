"""The plan's table: every GPU with its processes and memory use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.fit import Fit, Node, PlacedBundle
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

    def of(self, owners: Sequence[PlacedBundle]) -> int:
        if len(owners) > 1:
            return self.both
        return sum(self.learner if one.allocation.is_learner else self.engine for one in owners)


def gpu_use(learner: MemoryUse, engine: EngineMemory, turns: MemoryUse | None) -> GpuUse:
    return GpuUse(learner.total, engine.use.total, turns.largest.num_bytes if turns else 0)


def gpu_rows(
    recipe: PlanRecipe, found: Fit, nodes: Sequence[Node], hardware: Hardware, use: GpuUse
) -> list[GpuRow]:
    """Every GPU of every node in order, empty ones too; a node that may come only if it is used."""
    owners: dict[tuple[str, int], list[PlacedBundle]] = {}
    for one in found.placed:
        for gpu in one.gpus:
            owners.setdefault((one.node, gpu), []).append(one)
    present, used = {node.name for node in hardware.nodes}, {one.node for one in found.placed}
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
                    allocation=", ".join(one.allocation.name for one in here),
                    role=", ".join(role_of(recipe, one, gpu) for one in here),
                    has_learner=any(one.allocation.is_learner for one in here),
                    used_bytes=use.of(here),
                    memory_bytes=hardware.gpus[node.name].memory_bytes,
                    is_brought=node.name not in present,
                )
            )
    return rows


def role_of(recipe: PlanRecipe, one: PlacedBundle, gpu: int) -> str:
    """A GPU's task in words."""
    if one.allocation.is_learner:
        return f"rank {one.bundle} of {len(one.allocation.bundles)}"
    layers = " and ".join(recipe.layers[number - 1].name for number in one.allocation.layers)
    if len(one.gpus) == 1:
        return f"samples {layers}"
    return f"samples {layers}, part {one.gpus.index(gpu) + 1} of {len(one.gpus)}"
