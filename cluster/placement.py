"""Who sits where: one placement group per engine and one for the learner.

Engines come and go one by one, so each has a group of its own. A group that cannot be had is
an error with demand and supply side by side, never a silent wait (verl#6663).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.remote import RemoteActor
from mgrpo.config import RunConfig
from mgrpo.errors import PlacementError


@dataclass(frozen=True, slots=True)
class Seat:
    """The resources of one engine, or of the learner: one bundle per process."""

    name: str  # "layer1-engine-0", "learner"
    bundles: tuple[dict[str, float], ...]
    layers: tuple[int, ...] = ()  # which layers an engine serves; () for the learner

    @property
    def strategy(self) -> str:
        return "STRICT_PACK" if len(self.bundles) == 1 else "PACK"


def plan_seats(config: RunConfig, device: str) -> list[Seat]:
    """Every engine and the learner of a recipe, before anything is taken.

    Engines of one layer never share a seat with another layer's, unless engines.shared.
    """
    engine: dict[str, float] = {"CPU": config.engines.num_cpus}
    rank: dict[str, float] = {"CPU": config.learner.num_cpus}
    if device == "cuda":
        engine["GPU"] = config.engines.tensor_parallel_size
        rank["GPU"] = 1
    seats = []
    if config.engines.shared:
        every_layer = tuple(range(1, len(config.layers) + 1))
        seats += [
            Seat(f"engine-{index}", (engine,), every_layer)
            for index in range(config.engines.num_shared_engines)
        ]
    else:
        seats += [
            Seat(f"layer{number}-engine-{index}", (engine,), (number,))
            for number, layer in enumerate(config.layers, start=1)
            for index in range(layer.num_engines)
        ]
    seats.append(Seat("learner", tuple(dict(rank) for _ in range(config.learner.num_ranks))))
    return seats


def total(seats: list[Seat]) -> dict[str, float]:
    """What all seats ask for together."""
    demand: dict[str, float] = {}
    for seat in seats:
        for bundle in seat.bundles:
            for resource, amount in bundle.items():
                demand[resource] = demand.get(resource, 0) + amount
    return demand


class Placement:
    """The granted placement groups of one run."""

    def __init__(self, groups: dict[str, PlacementGroup]) -> None:
        self.groups = groups

    @classmethod
    def reserve(cls, seats: list[Seat], *, deadline_s: float, can_grow: bool) -> Placement:
        """Take every seat or none.

        Args:
            seats: from `plan_seats`.
            deadline_s: longest wait for all of them together.
            can_grow: whether new nodes may appear; a local Ray cannot, so it fails at once.

        Raises:
            PlacementError: with what was asked and what each node has.
        """
        demand = total(seats)
        supply = ray.cluster_resources()
        if not can_grow and any(demand[key] > supply.get(key, 0) for key in demand):
            raise PlacementError(describe_shortage(seats, "there is not enough in all"))
        groups: dict[str, PlacementGroup] = {}
        end = time.monotonic() + deadline_s
        for seat in seats:
            group = placement_group(
                [dict(bundle) for bundle in seat.bundles], strategy=seat.strategy, name=seat.name
            )
            groups[seat.name] = group
            if not group.wait(timeout_seconds=max(0.1, end - time.monotonic())):
                message = describe_shortage(
                    seats, f"{seat.name} got no place within {deadline_s:g} s"
                )
                for taken in groups.values():
                    remove_placement_group(taken)
                raise PlacementError(message)
        return cls(groups)

    def start(
        self,
        cls: type,
        *,
        seat: Seat,
        bundle: int,
        name: str,
        environment: dict[str, str],
        kwargs: dict[str, Any],
        max_concurrency: int | None = None,
    ) -> RemoteActor:
        """Make a plain class an actor in one bundle of a seat. Does not wait for it."""
        resources = seat.bundles[bundle]
        options: dict[str, Any] = {
            "name": name,
            "num_cpus": resources.get("CPU", 0),
            "num_gpus": resources.get("GPU", 0),
            "runtime_env": {"env_vars": environment},
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                placement_group=self.groups[seat.name], placement_group_bundle_index=bundle
            ),
        }
        if max_concurrency is not None:
            options["max_concurrency"] = max_concurrency
        return RemoteActor(ray.remote(cls).options(**options).remote(**kwargs), name)

    def release(self) -> None:
        for group in self.groups.values():
            remove_placement_group(group)
        self.groups = {}


def describe_shortage(seats: list[Seat], why: str) -> str:
    """Demand against supply, per seat and per node."""
    lines = [f"The cluster cannot place this run: {why}.", "Asked for:"]
    for seat in seats:
        lines.append(f"  {seat.name}: " + " + ".join(resource_text(b) for b in seat.bundles))
    lines.append(f"  in all: {resource_text(total(seats))}")
    lines.append("The cluster has:")
    for node in ray.nodes():
        if node["Alive"]:
            lines.append(f"  {node['NodeManagerAddress']}: {resource_text(node['Resources'])}")
    lines.append(f"  free in all: {resource_text(ray.available_resources())}")
    lines.append(
        "Lower layers.*.num_engines, engines.tensor_parallel_size or learner.num_ranks, set "
        "engines.shared: true, or add nodes; cluster.deadlines.placement_s is how long to wait."
    )
    return "\n".join(lines)


def resource_text(resources: dict[str, float]) -> str:
    shown = [f"{resources[key]:g} {key}" for key in ("CPU", "GPU") if resources.get(key)]
    return ", ".join(shown) or "nothing"


def detect_device(configured: str) -> str:
    """cpu or cuda: as configured, or cuda when the cluster has GPUs."""
    if configured != "auto":
        return configured
    return "cuda" if ray.cluster_resources().get("GPU", 0) > 0 else "cpu"
