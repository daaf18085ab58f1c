"""The pool's side of a service's process.

A service that waits for a network, or has a model in memory, serves many groups at a time, so it
has one process in place of the pool's for single checks. One that dies is replaced, and what it
was asked is asked again; one that stands still is killed first.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.context import SpawnContext

from mgrpo.config.services import ServiceTerm
from mgrpo.errors import RewardError
from mgrpo.rooms import call_in_rooms
from rewards.conventions import Group
from rewards.group_job import ChunkFuture, closed_error
from rewards.score import Outcome
from rewards.services.child import ALIVE, PROGRESS, READY, serve

logger = logging.getLogger(__name__)

MAX_RESTARTS = 3  # within RESTARTS_WINDOW_S; more have a systematic cause
RESTARTS_WINDOW_S = 600.0
END_DEADLINE_S = 10.0  # a killed process ends at once, unless the kernel holds it


class ServiceProcess:
    """Answers for one term, and is started again when its process dies."""

    def __init__(
        self,
        term: ServiceTerm,
        context: SpawnContext,
        on_progress: Callable[[], None],
        *,
        silent_s: float,
    ) -> None:
        """
        Args:
            silent_s: longest time without a sign of life of an open service, in seconds.
        """
        self.term = term
        self._silent_s = silent_s
        self._context = context
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._life: Life | None = None
        self._died_at: list[float] = []  # monotonic seconds
        self._is_closed = False

    def start(self) -> None:
        """Start the process; `wait_until_ready` says whether it can be used."""
        with self._lock:
            self._life = self._new_life()

    def wait_until_ready(self, deadline_s: float) -> None:
        """Until the service is open.

        Raises:
            RewardError: it cannot be used, or is not open after so many seconds.
        """
        assert self._life is not None
        try:
            failure = self._life.ready.result(timeout=max(0.0, deadline_s))
        except TimeoutError:
            raise RewardError(
                f"The reward term {self.term.function} was not ready within "
                "rewards.start_deadline_s. If it loads a large model, or downloads one, raise that."
            ) from None
        except BrokenProcessPool as error:
            raise RewardError(
                f"The process of the reward term {self.term.function} died while it started "
                f"({error})."
            ) from error
        if failure:
            raise RewardError(failure)

    def submit(self, group: Group) -> ChunkFuture:
        """[completion][1] what the term says; BrokenProcessPool where the process died meanwhile.

        Raises:
            RewardError: it is closed, or dies again and again.
        """
        with self._lock:
            if self._is_closed or self._life is None:
                raise closed_error()
            if self._life.is_over:
                self._replace(self._life)
            return self._life.ask(group)

    def close(self) -> None:
        """End the process at once."""
        with self._lock:
            self._is_closed = True
            life, self._life = self._life, None
        if life is not None:
            life.end()

    def _replace(self, dead: Life) -> None:
        now = time.monotonic()
        self._died_at = [at for at in self._died_at if now - at < RESTARTS_WINDOW_S] + [now]
        if len(self._died_at) > MAX_RESTARTS:
            raise RewardError(
                f"The process of the reward term {self.term.function} has died "
                f"{len(self._died_at)} times within {RESTARTS_WINDOW_S:g} s, last with "
                f"{dead.death}. Look for the kernel's out-of-memory messages (dmesg)."
            )
        logger.warning(
            "The process of the reward term %s has ended (%s). It is replaced, and what it was "
            "asked is asked again.",
            self.term.function,
            dead.death,
        )
        self._life = self._new_life()

    def _new_life(self) -> Life:
        return Life(self.term, self._context, self._on_progress, self._silent_s)


class Life:
    """One process, from its start to its end."""

    def __init__(
        self,
        term: ServiceTerm,
        context: SpawnContext,
        on_progress: Callable[[], None],
        silent_s: float,
    ) -> None:
        self.ready: Future[str] = Future()  # why it cannot be used, or ""
        self.is_over = False
        self.failure = ""  # why it cannot be used
        self.death = ""  # that, or its exit code
        self._on_progress = on_progress
        self._silent_s = silent_s
        self._lock = threading.Lock()
        self._waiting: dict[int, ChunkFuture] = {}
        self._numbers = itertools.count()
        self._pipe, theirs = context.Pipe()
        # A thread of its own: a full pipe must not hold the caller, which may be an event loop.
        self._sending = ThreadPoolExecutor(1, thread_name_prefix="rewards-send")
        self.process = context.Process(
            target=call_in_rooms,  # otherwise a user's rewards.py would shadow this package
            args=(serve, term, theirs),
            name=f"reward term {term.function}",
            daemon=True,
        )
        self.process.start()
        theirs.close()  # so that its end is the pipe's
        threading.Thread(target=self._listen, name="rewards-listen", daemon=True).start()

    def ask(self, group: Group) -> ChunkFuture:
        future: ChunkFuture = Future()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = future
            is_over = self.is_over
        if is_over:
            self._forget_all()
        else:
            self._send((number, group))
        future.add_done_callback(lambda done: self._take_back(number, done))
        return future

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join(timeout=END_DEADLINE_S)
        self._sending.shutdown(wait=False, cancel_futures=True)

    def _take_back(self, number: int, done: ChunkFuture) -> None:
        if done.cancelled():
            with self._lock:
                self._waiting.pop(number, None)
            self._send((number, None))

    def _send(self, message: tuple[int, Group | None]) -> None:
        def send() -> None:
            with suppress(OSError):  # it has died, as the listener finds
                self._pipe.send(message)

        with suppress(RuntimeError):  # it was ended
            self._sending.submit(send)

    def _listen(self) -> None:
        """On a thread of its own, until the process ends."""
        stood_still = ""
        with suppress(EOFError, OSError):
            while True:
                if self.ready.done() and not self._pipe.poll(self._silent_s):
                    stood_still = f"no sign of life for {self._silent_s:g} s, "
                    self.process.kill()
                number, what = self._pipe.recv()
                if number == ALIVE:
                    continue
                self._on_progress()
                if number == READY:
                    self.failure = what
                    self.ready.set_result(what)
                elif number != PROGRESS:
                    self._settle(number, [[outcome] for outcome in what])
        self.process.join(timeout=END_DEADLINE_S)
        code = f"{stood_still}exit code {self.process.exitcode}"
        if not self.ready.done():
            self.ready.set_exception(BrokenProcessPool(code))
        with self._lock:
            self.is_over = True
            self.death = self.failure or code
        self._sending.shutdown(wait=False)
        self._forget_all()

    def _forget_all(self) -> None:
        for number in list(self._waiting):
            self._settle(number, None)

    def _settle(self, number: int, rows: list[list[Outcome]] | None) -> None:
        """End a group's wait; None: the process died."""
        with self._lock:
            future = self._waiting.pop(number, None)
        if future is None:
            return
        with suppress(InvalidStateError):  # cancelled just now
            if rows is None:
                future.set_exception(BrokenProcessPool("the service died"))
            else:
                future.set_result(rows)
