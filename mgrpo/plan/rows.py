"""The plan's table: every GPU, who has it, and how full it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.fit import Fit, Node, Place
from mgrpo.config import RunConfig
from mgrpo.plan.engine_memory import EngineMemory
from mgrpo.plan.hardware import Hardware
from mgrpo.plan.memory import MemoryUse


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRow:
    """One GPU, and who has it."""

    node: str
    gpu: int
    seat: str  # "" for one that stays empty
    role: str
    used_bytes: int
    memory_bytes: int
    is_brought: bool  # its node has to be brought by the autoscaler first


def gpu_rows(
    config: RunConfig,
    found: Fit,
    nodes: Sequence[Node],
    hardware: Hardware,
    engine: EngineMemory,
    learner: MemoryUse,
) -> list[GpuRow]:
    """Every GPU of every node in order, empty ones too; a node that may come only if it is used."""
    owners = {(place.node, gpu): place for place in found.places for gpu in place.gpus}
    present, used = {node.name for node in hardware.nodes}, {place.node for place in found.places}
    rows = []
    for node in nodes:
        if node.name not in present | used:
            continue
        for gpu in range(int(node.resources.get("GPU", 0))):
            place = owners.get((node.name, gpu))
            is_learner = place is not None and place.seat.is_learner
            use = 0 if place is None else learner.total if is_learner else engine.use.total
            rows.append(
                GpuRow(
                    node=node.name,
                    gpu=gpu,
                    seat=place.seat.name if place else "",
                    role=role_of(config, place, gpu) if place else "",
                    used_bytes=use,
                    memory_bytes=hardware.gpus[node.name].memory_bytes,
                    is_brought=node.name not in present,
                )
            )
    return rows


def role_of(config: RunConfig, place: Place, gpu: int) -> str:
    """What a GPU does, in words."""
    if place.seat.is_learner:
        return f"rank {place.bundle} of {len(place.seat.bundles)}"
    layers = " and ".join(config.layers[number - 1].name for number in place.seat.layers)
    if len(place.gpus) == 1:
        return f"samples {layers}"
    return f"samples {layers}, part {place.gpus.index(gpu) + 1} of {len(place.gpus)}"
