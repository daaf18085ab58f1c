"""The processes that run checks.

A check may hang, crash or take the process down; each of these costs one completion and
one process, which is killed and replaced. Processes, never threads: many users'
checks need a main thread, and a thread cannot be killed.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from weakref import WeakKeyDictionary

from pebble import CONSTS, ProcessExpired, ProcessFuture, ProcessPool

from mgrpo.config.rewards import RewardsConfig
from mgrpo.config.services import ServiceTerm
from mgrpo.errors import RewardError
from mgrpo.records.token_columns import TokenIds
from mgrpo.rooms import call_in_rooms
from mgrpo.types import Problem, Reward, RewardStatus
from rewards.contained_process import ContainedContext, end_session
from rewards.conventions import Group
from rewards.group_job import Cell, ChunkFuture, GroupJob, Piece, closed_error, failures, pieces_of
from rewards.score import Outcome, TermReward, combine, no_answer_in_time
from rewards.services.process import ServiceProcess
from rewards.task_answer import VERIFYING, tasks_of
from rewards.worker import (
    CHUNK_BUDGET_S,
    Chunk,
    initialise,
    probe,
    score_task,
)

NUM_SLOTS = 1 << 16  # tasks that may wait at one time before two share a position
MAX_REPLACED_POOLS = 5  # within REPLACED_POOLS_WINDOW_S; more have a systematic cause
REPLACED_POOLS_WINDOW_S = 600.0
PROBE_PAUSE_S = 0.02
CANCEL_GRACE_S = 2.0  # from an async function's deadline, in its process, to the process's end
DISCARD_DEADLINE_S = 60.0  # killed processes end at once, unless the kernel holds them

CONSTS.term_timeout = 0.01  # seconds from pebble's SIGTERM, which our processes ignore, to SIGKILL


class RewardPool:
    """Scores groups of completions with a recipe's checks.

    Use it as a context manager, or call `start` and `close`. `score` may be awaited from any
    number of tasks at once and `score_blocking` called from any number of threads.

    Args:
        config: the recipe's rewards section. Its `deadline_s` is for one completion, all of its
            checks together; for a function that gets a whole group, for that.
        start_deadline_s: longest wait for the processes to import the checks, in seconds; by
            default the recipe's.
        problems: those that will be scored: the verifiers of their tasks are then loaded at the
            start, rather than within a completion's deadline.
    """

    def __init__(
        self,
        config: RewardsConfig,
        *,
        start_deadline_s: float | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        self.config = config
        self.start_deadline_s = start_deadline_s or config.start_deadline_s
        self.terms = config.terms
        self.functions = {
            number: term
            for number, term in enumerate(config.terms)
            if not isinstance(term, ServiceTerm)
        }
        self.is_async: Mapping[int, bool] = {}  # of each function; known when it is imported
        verifies = any(term.function in VERIFYING for term in config.terms)
        self.tasks = tasks_of(problems) if verifies else []
        self._context = ContainedContext()
        self._services = {
            number: ServiceProcess(
                term, self._context, self._note_progress, silent_s=self.start_deadline_s
            )
            for number, term in enumerate(config.terms)
            if isinstance(term, ServiceTerm)
        }
        self._positions = self._context.RawArray("i", NUM_SLOTS)
        self._slots = itertools.count()
        self._lock = threading.RLock()
        self._turns: WeakKeyDictionary[AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        self._pool: ProcessPool | None = None
        self._jobs: dict[ChunkFuture, GroupJob] = {}
        self._replaced_pools_at: list[float] = []  # monotonic seconds
        self._last_progress = time.monotonic()
        self._is_closed = False

    def __enter__(self) -> RewardPool:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start every process and import the checks there.

        Raises:
            RewardError: a check cannot be loaded, or not within the deadline.
        """
        with self._lock:
            if self._is_closed:
                raise RewardError("The reward pool is closed; make a new one.")
            if self._pool is not None:
                return
            self._pool = self._new_pool()
            for service in self._services.values():
                service.start()
        deadline = time.monotonic() + self.start_deadline_s
        try:
            self._wait_for_processes(self._pool, deadline)
            for service in self._services.values():
                service.wait_until_ready(deadline - time.monotonic())
        except BaseException:
            self.close()
            raise

    def submit(
        self,
        problem: Problem,
        texts: Sequence[str],
        token_ids: Sequence[TokenIds | list[int]] | None = None,
    ) -> Future[list[Reward]]:
        """Submit a group; the future's rewards are in the order of the texts.

        Args:
            problem: that all of them answer.
            texts: the completions.
            token_ids: of each, for reward functions that read them.
        """
        if self._pool is None:
            raise RewardError("The reward pool is not running; call start() first.")
        if not self._jobs:
            self._last_progress = time.monotonic()
        group = Group(problem=problem, texts=list(texts), token_ids=token_ids)
        takes_group = {
            number: number in self._services or term.FOR_GROUP or self.is_async[number]
            for number, term in enumerate(self.terms)
            if term.scores(problem.source)
        }
        if not takes_group:
            raise RewardError(
                f"No term of rewards.terms scores problem {problem.problem_id} of the source "
                f"{problem.source!r}: add the source to `sources` of a term."
            )
        job = GroupJob(group, takes_group, self._submit_piece, self._combine)
        try:
            job.start(pieces_of(len(texts), takes_group, self.config.num_processes))
        except BaseException as error:
            job.fail(error)
            raise
        return job.result

    async def score(
        self,
        problem: Problem,
        texts: Sequence[str],
        token_ids: Sequence[TokenIds | list[int]] | None = None,
    ) -> list[Reward]:
        """The rewards of one problem's completions, in the order of the texts.

        Cancelling it removes the group from the pool. However many groups come at once, the event
        loop runs what else waits between two of them.
        """
        async with self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            await asyncio.sleep(0)
            future = asyncio.wrap_future(self.submit(problem, texts, token_ids))
        try:
            while not (await asyncio.wait({future}, timeout=self.patience_s))[0]:
                self.refuse_stall()
            return future.result()
        finally:
            future.cancel()  # no effect if it is done

    def score_blocking(
        self,
        problem: Problem,
        texts: Sequence[str],
        token_ids: Sequence[TokenIds | list[int]] | None = None,
    ) -> list[Reward]:
        """Like `score`, for threads without an event loop."""
        future = self.submit(problem, texts, token_ids)
        try:
            while not wait([future], timeout=self.patience_s).done:
                self.refuse_stall()
            return future.result()
        finally:
            future.cancel()

    def close(self) -> None:
        """Kill the processes at once. Groups that are still waiting get a RewardError."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            pool, self._pool = self._pool, None
            jobs = list(self._jobs.items())
        for _, job in jobs:
            job.fail(closed_error())
        for service in self._services.values():
            service.close()
        if pool is not None:
            discard(pool)

    @property
    def patience_s(self) -> float:
        """Longest time without a finished completion in a working pool, in seconds."""
        slowest_s = max(
            self.config.deadline_s, *(one.term.patience_s for one in self._services.values()), 0.0
        )
        return slowest_s + CANCEL_GRACE_S + self.start_deadline_s

    def _note_progress(self) -> None:
        self._last_progress = time.monotonic()

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self.config.num_processes,
            initializer=call_in_rooms,  # otherwise a user's rewards.py would shadow this package
            initargs=(
                initialise,
                self.functions,
                self.tasks,
                self._positions,
                self.config.deadline_s,
                self.config.memory_gib,
            ),
            context=self._context,
        )

    def _wait_for_processes(self, pool: ProcessPool, deadline: float) -> None:
        """Until each process has answered a probe; the first failure to load is raised."""
        ready: set[int] = set()
        while len(ready) < self.config.num_processes:
            probes = [
                pool.schedule(probe, args=(PROBE_PAUSE_S,))
                for _ in range(self.config.num_processes)
            ]
            for future in probes:
                try:
                    found = future.result(timeout=max(0.0, deadline - time.monotonic()))
                except TimeoutError as error:
                    raise RewardError(
                        f"Only {len(ready)} of {self.config.num_processes} reward processes "
                        f"started within {self.start_deadline_s:g} s. They import {self._names()}; "
                        "if that is slow, raise rewards.start_deadline_s in the recipe."
                    ) from error
                except (BrokenProcessPool, ProcessExpired) as error:
                    raise RewardError(
                        f"A reward process died while it imported {self._names()}: {error}. "
                        "Import them manually to see the error."
                    ) from error
                if found.failure:
                    raise RewardError(found.failure)
                self.is_async = found.is_async
                ready.add(found.pid)

    def _names(self) -> str:
        return ", ".join(term.function for term in self.functions.values())

    def _combine(self, outcomes: Mapping[int, Outcome]) -> Reward:
        return combine(
            [
                TermReward(
                    name=term.function,
                    weight=term.weight,
                    reward=self._counted(number, outcomes.get(number)),
                    says_correct=term.correct_at is not None,
                )
                for number, term in enumerate(self.terms)
            ]
        )

    def _counted(self, number: int, outcome: Outcome) -> Outcome:
        """What a term says, with the recipe's word on a function that took too long."""
        is_zero = self.config.timeout_is == "zero" and number in self.functions
        return no_answer_in_time(outcome) if is_zero else outcome

    def _submit_piece(self, job: GroupJob, piece: Piece) -> None:
        """Make a task of some of a job's work."""
        slot = next(self._slots) % NUM_SLOTS
        self._positions[slot] = 0
        group = job.group if piece.is_group else job.group.part(piece.indices)
        chunk = Chunk(group=group, terms=piece.terms, slot=slot)
        with self._lock:  # so that a pool that is replaced now includes this task
            service = self._services.get(piece.terms[0])
            if service is not None:
                future = service.submit(job.group.part(piece.indices))
            else:
                future = self._schedule(chunk, is_group=piece.is_group)
            self._jobs[future] = job
        job.watch(future)

        def failure_of(status: RewardStatus, what: str) -> list[Cell]:
            position, deadline_s = self._positions[slot], self.config.deadline_s
            return failures(piece, position, status, what, deadline_s=deadline_s)

        def when_done(future: ChunkFuture) -> None:
            self._note_progress()
            if not future.cancelled() and isinstance(death := future.exception(), ProcessExpired):
                end_session(death.pid)
            job.absorb(piece, future, failure_of)
            with self._lock:
                self._jobs.pop(future, None)

        future.add_done_callback(when_done)

    def _schedule(self, chunk: Chunk, *, is_group: bool) -> ChunkFuture:
        """Queue a task. Its deadline starts when a process begins it."""
        timeout = self.config.deadline_s
        if is_group:
            timeout += CANCEL_GRACE_S if self.is_async[chunk.terms[0]] else 0.0
        elif len(chunk.group.texts) > 1:
            timeout += CHUNK_BUDGET_S
        with self._lock:
            if self._pool is None:
                raise closed_error()
            try:
                return self._pool.schedule(score_task, args=(chunk, is_group), timeout=timeout)
            except RuntimeError:  # the pool has stopped working: see _replace_pool
                self._replace_pool()
                return self._pool.schedule(score_task, args=(chunk, is_group), timeout=timeout)

    def _replace_pool(self) -> None:
        """Start over with new processes.

        pebble abandons a whole pool when a process without a task dies, for instance killed by the
        kernel when memory runs out. Its tasks are submitted again.
        """
        assert self._pool is not None
        now = time.monotonic()
        recent = [at for at in self._replaced_pools_at if now - at < REPLACED_POOLS_WINDOW_S]
        self._replaced_pools_at = [*recent, now]
        if len(recent) >= MAX_REPLACED_POOLS:
            raise RewardError(
                f"The reward processes have died {len(recent) + 1} times within "
                f"{REPLACED_POOLS_WINDOW_S:g} s without a task that explains it. Look for the "
                "kernel's out-of-memory messages (dmesg), or lower rewards.num_processes."
            )
        broken, self._pool = self._pool, self._new_pool()
        lost = [future for future in self._jobs if isinstance(future, ProcessFuture)]
        # A thread of its own: this may run on a thread of the pool that is discarded.
        threading.Thread(target=discard, args=(broken,), daemon=True).start()
        for future in lost:
            future.cancel()  # its callback submits it again, to the new pool

    def refuse_stall(self) -> None:
        """Raise if no task has progressed: called after a long wait."""
        silence_s = time.monotonic() - self._last_progress
        if silence_s > self.patience_s:
            raise RewardError(
                f"No completion has been scored for {silence_s:.0f} s, while {len(self._jobs)} "
                f"tasks wait. A check's deadline is rewards.deadline_s = "
                f"{self.config.deadline_s:g} s, a service's its own, so the reward processes are "
                "stuck; check whether the machine is out of memory."
            )


def discard(pool: ProcessPool, *, deadline_s: float = DISCARD_DEADLINE_S) -> None:
    """Kill a pool's processes and end its threads.

    Raises:
        RewardError: they have not ended after `deadline_s`.
    """
    pool.stop()
    ending = threading.Thread(target=pool.join, name="rewards-end", daemon=True)
    ending.start()
    ending.join(deadline_s)
    if ending.is_alive():
        raise RewardError(
            f"The reward processes have not ended {deadline_s:g} s after they were killed. One in "
            "state D (ps -o pid,stat,wchan,args) waits for a disk or a network file system."
        )
