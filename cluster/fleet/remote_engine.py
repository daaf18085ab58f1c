"""The client of a vLLM engine in an actor, with a record of its load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from cluster.engine_actor import EngineActor
from cluster.fleet.progress_watch import GENERATE_S, ProgressWatch
from cluster.progress_board import ProgressBoard
from cluster.remote import RemoteActor
from mgrpo.config.layers import Speculation, Stop
from mgrpo.records.turns import Prompt
from mgrpo.types import Generation


class Workload:
    """An engine's busy time and its concurrent completions.

    Example: 8 completions for 2 s, then 4 for 1 s: busy_s = 3, completion_s = 20, so 6.7 at a
    time while it was busy.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.num_inflight = 0
        self.busy_s = self.completion_s = 0.0
        self.counted_until = clock()

    def change(self, num_inflight: int) -> None:
        """From now on this many completions are being sampled."""
        self.count()
        self.num_inflight = num_inflight

    def count(self) -> None:
        """Take in the time until now."""
        now = self.clock()
        passed_s, self.counted_until = now - self.counted_until, now
        if self.num_inflight > 0:
            self.busy_s += passed_s
            self.completion_s += passed_s * self.num_inflight

    def take(self) -> tuple[float, float]:
        """(busy_s, completion_s) since the last call."""
        self.count()
        taken = (self.busy_s, self.completion_s)
        self.busy_s = self.completion_s = 0.0
        return taken


class RemoteEngine:
    """Calls an engine's actor, and fails its requests if it makes no progress.

    Args:
        actor: the engine's.
        deadline_s: longest time in which none of its requests gets a token.
        board: is told of tokens and requests.
    """

    def __init__(
        self,
        actor: RemoteActor[EngineActor],
        *,
        deadline_s: float,
        board: ProgressBoard | None = None,
    ) -> None:
        self.board = board or ProgressBoard()
        self.actor, self.name = actor, actor.name
        self.deadline_s = deadline_s
        self.workload = Workload()
        self.watch: ProgressWatch | None = None  # while it has work

    @property
    def num_inflight(self) -> int:
        """Requested completions without a result yet."""
        return self.workload.num_inflight

    @num_inflight.setter
    def num_inflight(self, count: int) -> None:
        self.workload.change(count)
        self.board.did(f"requests of {self.name}")

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
    ) -> list[Generation]:
        """Sample completions of one prompt; see `VllmEngine.generate`.

        Raises:
            DeadlineError, ActorDiedError: the engine is lost.
            RequestError: this request failed, and the engine is healthy.
            SamplingError: what it sampled cannot be trained on.
        """
        if self.watch is None or self.watch.is_over:
            self.watch = ProgressWatch(self.actor, deadline_s=self.deadline_s, board=self.board)
        watch = self.watch
        request = asyncio.create_task(
            self.actor.submit(
                EngineActor.generate,
                prompt,
                num_samples=num_samples,
                max_tokens=max_tokens,
                temperature=temperature,
                seed=seed,
                num_spare=num_spare,
                speculation=speculation,
                stop=stop,
                priority=priority,
            ).answer(deadline_s=None, setting=GENERATE_S)  # the watch has a deadline
        )
        try:
            return await watch.outcome(request, prompt)
        finally:
            if not watch.requests:
                watch.end()
                if self.watch is watch:
                    self.watch = None
