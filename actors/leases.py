"""Requests as leases: work that an engine takes with it when it is lost is sent to another one.

A lease carries its seed, so the second engine samples what the first would have: the same
weights, prompt and seed give the same token ids, and nothing tells such a group from another.
A request has one result, so a group is never counted twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from mgrpo.errors import ActorDiedError, DeadlineError, MgrpoError
from mgrpo.types import Sample

ENGINE_LOSSES = (ActorDiedError, DeadlineError)
"""What tells of a lost engine: its process is gone, or it did not answer in time."""


class Engine(Protocol):
    """What a rollout asks of an engine. `RemoteEngine` and `ScriptedEngine` are two."""

    name: str
    num_inflight: int  # completions asked for and not yet back

    async def generate(
        self,
        prompt_token_ids: list[int],
        *,
        num_samples: int,
        max_tokens: int,
        temperature: float,
        seed: int,
    ) -> list[Sample]: ...


class EngineSource(Protocol):
    """Where a rollout gets its engines from. The fleet and `FixedEngines` are two."""

    max_resends: int  # of one request

    async def take(self, layer: int) -> Engine:
        """The least busy engine of a layer that is fit for work; waits where there is none.

        Raises:
            ClusterError: there is none, and none comes in time.
        """
        ...

    def report_lost(self, engine: Engine, error: MgrpoError) -> None:
        """A request failed because its engine is gone, or did not answer; it will be sent again."""
        ...

    def run(self, work: Coroutine[Any, Any, Any], *, counted: bool = True) -> Any:
        """Run work that samples, with whatever the engines need meanwhile; returns its result.

        Args:
            counted: does it count for how busy the engines were in a step?
        """
        ...


class FixedEngines:
    """Engines that are there from the start and do not come back: the light twin of the fleet."""

    def __init__(self, by_layer: Mapping[int, Sequence[Engine]], *, max_resends: int = 3) -> None:
        self.by_layer = {layer: list(engines) for layer, engines in by_layer.items()}
        self.max_resends = max_resends
        self.num_resent = 0

    async def take(self, layer: int) -> Engine:
        if not self.by_layer[layer]:
            raise ActorDiedError(f"Layer {layer} has lost its last engine.")
        return least_busy(self.by_layer[layer])

    def report_lost(self, engine: Engine, error: MgrpoError) -> None:
        self.num_resent += 1
        for engines in self.by_layer.values():
            if engine in engines:
                engines.remove(engine)

    def run(self, work: Coroutine[Any, Any, Any], *, counted: bool = True) -> Any:
        return asyncio.run(work)


def least_busy(engines: Sequence[Engine]) -> Engine:
    return min(engines, key=lambda engine: engine.num_inflight)


async def sample_leased(
    source: EngineSource,
    layer: int,
    prompt_token_ids: list[int],
    *,
    num_samples: int,
    max_tokens: int,
    temperature: float,
    seed: int,
) -> list[Sample]:
    """Sample one prompt's completions on whichever engine lives to finish them.

    Returns:
        The samples, stamped with the name of the engine that made them.

    Raises:
        ActorDiedError, DeadlineError: the last loss, when `max_resends` did not help.
    """
    num_resent = 0
    while True:
        engine = await source.take(layer)
        engine.num_inflight += num_samples
        try:
            samples = await engine.generate(
                prompt_token_ids,
                num_samples=num_samples,
                max_tokens=max_tokens,
                temperature=temperature,
                seed=seed,
            )
        except ENGINE_LOSSES as error:
            source.report_lost(engine, error)
            if num_resent == source.max_resends:
                raise
            num_resent += 1
        else:
            return [replace(sample, engine=engine.name) for sample in samples]
        finally:
            engine.num_inflight -= num_samples
