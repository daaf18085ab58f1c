"""Who sits where, before anything is taken: one seat per engine and one for the learner.

Pure: no Ray, so that `mgrpo check` and the plan can use it anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from mgrpo.config import RunConfig


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
