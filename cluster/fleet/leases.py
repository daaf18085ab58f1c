"""Requests with retries: a request that is lost with an engine is sent to another one.

A request carries its seed, so the second engine samples what the first would have: the same
weights, prompt and seed give the same token ids. A request has one result, so a group is never
counted twice. One that fails on a healthy engine is also retried on another engine; the first
one stays in use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from mgrpo.config.layers import Speculation, Stop
from mgrpo.errors import (
    ActorDiedError,
    DeadlineError,
    MgrpoError,
    RequestError,
    RunInterrupted,
    SamplingError,
)
from mgrpo.records.turns import Prompt
from mgrpo.types import Generation

ENGINE_LOSSES = (ActorDiedError, DeadlineError)
"""Errors that mean a lost engine: its process is gone, or it stopped generating."""

LOOK_S = 0.05  # between two looks at whether engines have finished their requests

Result = TypeVar("Result")


class Engine(Protocol):
    """An engine as a rollout uses it; implemented by `RemoteEngine` and `ScriptedEngine`."""

    name: str
    num_inflight: int  # requested completions without a result yet

    async def generate(
        self,
        prompt: Prompt,
        *,
        num_samples: int,
        max_tokens: int,
        temperature: float,
        seed: int,
        num_spare: int = 0,
        speculation: Speculation | None = None,
        stop: Stop | None = None,
        priority: int = 0,
    ) -> list[Generation]: ...


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of a layer's engines a request goes to: the least busy one, with two exceptions."""

    rather_not: Collection[str] = ()  # names of engines to use only if there is no other
    rather: str = ""  # the engine that holds the prompt's beginning in its cache, by name
    slack: int = 0  # so many open completions more may `rather` have than the least busy one

    def of(self, engines: Sequence[Engine]) -> Engine:
        others = [one for one in engines if one.name not in self.rather_not] or engines
        least = min(others, key=lambda one: one.num_inflight)
        for one in others:
            if one.name == self.rather and one.num_inflight <= least.num_inflight + self.slack:
                return one
        return least


class EngineSource(Protocol):
    """The scheduler of a rollout's requests; implemented by `Fleet` and `FixedEngines`."""

    max_resends: int  # of one request

    async def take(self, layer: int, choice: Choice) -> Engine:
        """A healthy engine of a layer; waits until there is one.

        Raises:
            ClusterError: there is none, and none restarts in time.
        """
        ...

    def report_lost(self, engine: Engine, error: MgrpoError) -> None:
        """Record that a request was lost with its engine; it will be retried."""
        ...

    def report_failed(self, engine: Engine, error: MgrpoError) -> None:
        """Record that a request failed on a healthy engine; it will be retried."""
        ...

    def run(self, work: Coroutine[object, None, Result], *, counted: bool = True) -> Result:
        """Run work that samples, with health checks of the engines meanwhile; returns its result.

        Args:
            counted: does it count for how busy the engines were in a step?
        """
        ...


class SamplingLoop:
    """An event loop for work that samples, and that a signal may end.

    What was begun with `begin` goes on whenever the loop runs; between two runs engines go on with
    the requests that they have.
    """

    def __init__(self) -> None:
        self.runner = asyncio.Runner()

    def begin(self, work: Coroutine[object, None, Result]) -> asyncio.Task[Result]:
        """Begin work whose result is awaited in a later run."""
        return self.runner.get_loop().create_task(work)

    def run(self, work: Coroutine[object, None, Result]) -> Result:
        """`asyncio.run`; a failure also ends all that was begun.

        A signal's handler raises wherever the main thread is. Where that is a callback of the
        event loop, asyncio would only log it, and the run would go on.

        Raises:
            RunInterrupted: the signal's.
        """
        caught: list[RunInterrupted] = []

        async def watched() -> Result:
            loop, own = asyncio.get_running_loop(), asyncio.current_task()
            assert own is not None, "the runner makes a task"

            def look(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
                error = context.get("exception")
                if not isinstance(error, RunInterrupted):
                    loop.default_exception_handler(context)
                    return
                caught.append(error)
                own.cancel()

            loop.set_exception_handler(look)
            return await work

        try:
            return self.runner.run(watched())
        except BaseException as error:
            self.close()
            if caught and isinstance(error, asyncio.CancelledError):
                raise caught[0] from None
            raise

    def close(self) -> None:
        """Cancel what is not done; the next run has a loop of its own."""
        self.runner.close()
        self.runner = asyncio.Runner()


def run_interruptible(work: Coroutine[object, None, Result]) -> Result:
    """`SamplingLoop.run` on a loop of its own."""
    with closing(SamplingLoop()) as loop:
        return loop.run(work)


class Gate:
    """Lets requests pass to the engines, or holds them back while new weights are due."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.opened.set()

    def open(self) -> None:
        self.opened.set()

    async def passed(self) -> None:
        """Wait until the gate is open."""
        await self.opened.wait()

    async def drained(self, num_inflight: Callable[[], int]) -> None:
        """Close the gate, and wait until no request runs. Requests have deadlines of their own."""
        self.opened.clear()
        while num_inflight():
            await asyncio.sleep(LOOK_S)


class FixedEngines:
    """A fixed set of engines without restarts: the light twin of the fleet."""

    def __init__(self, by_layer: Mapping[int, Sequence[Engine]], *, max_resends: int = 3) -> None:
        self.by_layer = {layer: list(engines) for layer, engines in by_layer.items()}
        self.max_resends = max_resends
        self.num_resent = 0
        self.gate = Gate()

    async def take(self, layer: int, choice: Choice) -> Engine:
        await self.gate.passed()
        if not self.by_layer[layer]:
            raise ActorDiedError(f"Layer {layer} has lost its last engine.")
        return choice.of(self.by_layer[layer])

    def report_lost(self, engine: Engine, error: MgrpoError) -> None:
        self.num_resent += 1
        for engines in self.by_layer.values():
            if engine in engines:
                engines.remove(engine)

    def report_failed(self, engine: Engine, error: MgrpoError) -> None:
        self.num_resent += 1

    def run(self, work: Coroutine[object, None, Result], *, counted: bool = True) -> Result:
        return run_interruptible(work)


async def sample_leased(
    source: EngineSource,
    layer: int,
    prompt: Prompt,
    *,
    num_samples: int,
    max_tokens: int,
    temperature: float,
    seed: int,
    what: str,
    num_spare: int = 0,
    speculation: Speculation | None = None,
    stop: Stop | None = None,
    priority: int = 0,
    rather: str = "",
) -> list[Generation]:
    """Sample one prompt's completions, with retries on other engines.

    Args:
        what: name of the request in messages: "completions of problem sum/3".
        num_spare: so many more are begun; all but the shortest are aborted.
        speculation: how its completions are drafted; None: not.
        stop: what ends them beside the end of the turn; tokens as ids.
        priority: engines begin requests with a lower number first.
        rather: the engine that holds the prompt's beginning in its cache, by name: it is taken
            where it has at most this request's completions more to do than the least busy one.

    Returns:
        What was sampled, stamped with the name of the engine that made them: `num_samples`, and
        after these what there is of the aborted ones.

    Raises:
        ActorDiedError: it was lost with an engine more than `max_resends` times.
        RequestError: likewise, it failed on healthy engines.
        SamplingError: what was sampled cannot be trained on; names engine, layer and request.
    """
    num_resent = 0
    failed_on: list[str] = []
    while True:
        engine = await source.take(layer, Choice(failed_on, rather, slack=num_samples))
        engine.num_inflight += num_samples + num_spare
        try:
            generations = await engine.generate(
                prompt,
                num_samples=num_samples,
                max_tokens=max_tokens,
                temperature=temperature,
                seed=seed,
                num_spare=num_spare,
                speculation=speculation,
                stop=stop,
                priority=priority,
            )
        except ENGINE_LOSSES as error:
            source.report_lost(engine, error)
            if num_resent == source.max_resends:
                raise ActorDiedError(
                    f"Layer {layer}: {what} were lost with {num_resent + 1} engines and are not "
                    f"retried (cluster.health.max_resends). The last error: {error}"
                ) from error
        except RequestError as error:
            source.report_failed(engine, error)
            failed_on.append(engine.name)
            if num_resent == source.max_resends:
                raise RequestError(
                    f"Layer {layer}: {what} ({len(prompt)} prompt tokens, at most "
                    f"{max_tokens} new ones) failed on {', '.join(dict.fromkeys(failed_on))} and "
                    f"are not retried (cluster.health.max_resends). The last error: {error}"
                ) from error
        except SamplingError as error:
            raise SamplingError(f"Layer {layer}, {what}: {error}") from error
        else:
            return [replace(one, engine=engine.name) for one in generations]
        finally:
            engine.num_inflight -= num_samples + num_spare
        num_resent += 1
