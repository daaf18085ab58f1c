"""Engine metrics of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.fleet.elastic import PoolLoad
from cluster.fleet.engine_process import EngineProcess, StateChange
from cluster.fleet.health import EngineState
from cluster.fleet.remote_engine import RemoteEngine
from mgrpo.metric_sums import MetricSums


@dataclass
class FleetCounts:
    """Events since the last step."""

    num_deaths: int = 0
    num_restarts: int = 0
    num_resent: int = 0
    num_broadcasts: int = 0  # in the middle of a step
    num_failed_broadcasts: int = 0
    last_failure: str = ""  # of a broadcast
    last_failed_request: str = ""

    def count(self, change: StateChange) -> None:
        self.num_deaths += change.now is EngineState.DEAD
        self.num_restarts += change.now is EngineState.RESTARTING

    def take(self) -> MetricSums:
        """The counts as metrics; resets them."""
        sums = MetricSums()
        sums.add_total("engines/deaths", self.num_deaths)
        sums.add_total("engines/restarts", self.num_restarts)
        sums.add_total("engines/requests_resent", self.num_resent)
        sums.add_total("engines/broadcasts_in_step", self.num_broadcasts)
        sums.add_total("engines/failed_broadcasts", self.num_failed_broadcasts)
        self.num_deaths = self.num_restarts = self.num_resent = 0
        self.num_broadcasts = self.num_failed_broadcasts = 0
        return sums


def state_counts(engines: Sequence[EngineProcess]) -> MetricSums:
    """engines/healthy, engines/stale, …: how many are in each state now."""
    sums = MetricSums()
    for state in EngineState:
        sums.add_total(f"engines/{state}", sum(engine.state is state for engine in engines))
    return sums


def pool_load(
    engines: Sequence[EngineProcess], workers: Mapping[str, RemoteEngine], step_s: float
) -> PoolLoad:
    """Load of one pool over a step of `step_s` seconds; resets its record."""
    busy_s = completion_s = 0.0
    for engine in engines:
        if engine.name in workers:
            busy, completions = workers[engine.name].workload.take()
            busy_s, completion_s = busy_s + busy, completion_s + completions
    num_engines = sum(engine.health.is_alive for engine in engines)
    fraction = busy_s / (step_s * num_engines) if num_engines else 0.0
    return PoolLoad(
        num_engines=num_engines,
        num_coming=sum(engine.health.is_coming for engine in engines),
        busy_fraction=min(fraction, 1.0),
        inflight_mean=completion_s / busy_s if busy_s > 0 else 0.0,
    )


def busy_fractions(loads: Mapping[str, PoolLoad], learner_fraction: float) -> dict[str, float]:
    """Busy fractions of every pool and of the learner, by name."""
    pools = {name: load.busy_fraction for name, load in loads.items()}
    return {**pools, "learner": min(learner_fraction, 1.0)}
