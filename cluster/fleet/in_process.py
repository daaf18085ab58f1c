"""Engines in this process, whose weights are a version number: the light twin of the fleet."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Protocol

from cluster.fleet.leases import Engine, FixedEngines, Gate, Result, SamplingLoop
from cluster.weight_sync.broadcast import SyncReport
from mgrpo.metric_sums import MetricSums


class VersionedEngine(Engine, Protocol):
    """An engine that stamps its completions with the version that it was last given."""

    policy_version: int


class InProcessEngines(FixedEngines):
    """Schedules fixed engines, and gives each the learner's version in a broadcast.

    Args:
        by_layer: the engines of each layer, 1 for the first; an engine may serve several.
    """

    def __init__(
        self, by_layer: Mapping[int, Sequence[VersionedEngine]], *, max_resends: int = 3
    ) -> None:
        super().__init__(by_layer, max_resends=max_resends)
        self.members = list({id(one): one for own in by_layer.values() for one in own}.values())
        self.versions: list[int] = []  # of the broadcasts, in order
        self.loop = SamplingLoop()

    def run(self, work: Coroutine[object, None, Result], *, counted: bool = True) -> Result:
        return self.loop.run(work)

    def begin(self, work: Coroutine[object, None, Result]) -> asyncio.Task[Result]:
        """Begin work that samples; it goes on in later calls of `run`."""
        return self.loop.begin(work)

    async def drained(self) -> None:
        """Finish the running requests, and hold others back until the next broadcast."""
        await self.gate.drained(lambda: sum(one.num_inflight for one in self.members))

    def close(self) -> None:
        """Cancel what was begun; later work has a loop of its own."""
        self.loop.close()
        self.gate = Gate()

    def offload_engines(self) -> None:
        """No-op: nothing is shared with a learner."""

    def poll(self) -> None:
        """No-op: these engines do not fail."""

    def broadcast(self, policy_version: int) -> SyncReport:
        """Every engine's completions are of this version from now on."""
        for engine in self.members:
            engine.policy_version = policy_version
        self.versions.append(policy_version)
        self.gate.open()
        return SyncReport(policy_version, seconds=0.0, num_tensors=0, probe_gap_max=None)

    def close_step(self, sums: MetricSums) -> None:
        """Add how many engines there are."""
        sums.add("engines/in_process", len(self.members))
