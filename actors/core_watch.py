"""Finds out that vLLM's own processes, behind an engine's actor, stand still, and ends them.

A process that is gone is noticed by vLLM, and everything that waits for it fails. So one that
stands still is ended: there is then one kind of loss, in requests, in broadcasts and between them.
No vLLM here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Protocol

import psutil

LOOK_S = 1.0


class Core(Protocol):
    """What is watched of vLLM."""

    @property
    def is_idle(self) -> bool:
        """Whether it computes nothing, so that it would answer at once."""
        ...

    def ask(self) -> Awaitable[object]:
        """A question to the process that holds the model."""
        ...


class CoreWatch:
    """Counts the seconds in which vLLM's processes are stopped, or idle without an answer.

    One that computes may be late with its answers: its tokens are its signs of life, which
    `cluster.fleet.progress_watch` looks at.

    Args:
        patience_s: after so many its processes are ended.
        processes: vLLM's.
        say: takes a sentence for the log.
    """

    def __init__(
        self,
        core: Core,
        *,
        patience_s: float,
        processes: Callable[[], Iterable[psutil.Process]],
        say: Callable[[str], None],
    ) -> None:
        self.core, self.patience_s = core, patience_s
        self.processes, self.say = processes, say
        self.stopped_s = self.silent_s = 0.0
        self.question: asyncio.Future[object] | None = None

    async def run(self) -> None:
        """Look once a second, until the processes were ended."""
        clock = asyncio.get_running_loop().time
        looked_at = clock()
        while not self.is_over:
            await asyncio.sleep(min(LOOK_S, self.patience_s / 4))
            # A process that was itself stopped has waited no longer than it looked.
            passed_s, looked_at = min(clock() - looked_at, 2 * LOOK_S), clock()
            self.look(passed_s)
        why = f"stopped for {self.stopped_s:.0f} s" if self.stopped_s else "idle without an answer"
        self.say(
            f"vLLM's process stands still ({why}; cluster.health.dead_after_s is "
            f"{self.patience_s:g}): it is ended"
        )
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()

    @property
    def is_over(self) -> bool:
        return max(self.stopped_s, self.silent_s) > self.patience_s

    def look(self, passed_s: float) -> None:
        """Take in one look, so long after the one before."""
        is_stopped = any(status_of(one) == psutil.STATUS_STOPPED for one in self.processes())
        self.stopped_s = self.stopped_s + passed_s if is_stopped else 0.0
        if self.question is not None and self.question.done():
            self.question.exception()  # vLLM says itself that it is dead
            self.question = None
        if self.question is None:
            self.silent_s = 0.0
            if self.core.is_idle:
                self.question = asyncio.ensure_future(self.core.ask())
        elif self.core.is_idle:
            self.silent_s += passed_s


def status_of(process: psutil.Process) -> str:
    """Its state in psutil's words; "" if it is gone."""
    try:
        return str(process.status())
    except psutil.Error:
        return ""


def descendants() -> list[psutil.Process]:
    """Every process that this one has started, and those that they have."""
    try:
        return list(psutil.Process().children(recursive=True))
    except psutil.Error:  # one ended meanwhile
        return []
