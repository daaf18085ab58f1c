"""Scores one group of completions in the reward processes.

A group is cut into chunks, because a task per completion costs more than most checks. The
deadline still applies to each completion. If a chunk's process hangs or dies, its current
completion becomes the timeout or the error, and the others are submitted again. A chunk of slow
checks returns the completions that it has not begun.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures.process import BrokenProcessPool

from pebble import ProcessExpired

from mgrpo.errors import RewardError
from mgrpo.types import Problem, Reward, RewardStatus
from rewards.score import failed

ChunkFuture = Future[list[Reward]]
Submit = Callable[["GroupJob", list[int]], None]

MAX_CHUNK = 32


def chunk_size(num_texts: int, num_processes: int) -> int:
    """Completions per task: enough tasks to keep every process busy, none too small."""
    return max(1, min(MAX_CHUNK, num_texts // (2 * num_processes)))


class GroupJob:
    """Collects the rewards of one group; `result` is done when all are in."""

    def __init__(self, problem: Problem, texts: Sequence[str], submit: Submit) -> None:
        self.problem = problem
        self.texts = list(texts)
        self.submit = submit
        self.rewards: list[Reward | None] = [None] * len(self.texts)
        self.num_missing = len(self.texts)
        self.lock = threading.Lock()  # futures finish on several of the pool's threads
        self.futures: set[ChunkFuture] = set()
        self.result: Future[list[Reward]] = Future()
        self.result.add_done_callback(self.forget_if_cancelled)

    def start(self, size: int) -> None:
        """Submit the whole group, `size` completions per task."""
        if not self.texts:
            self.result.set_result([])
        indices = range(len(self.texts))
        for start in range(0, len(self.texts), size):
            self.submit(self, list(indices[start : start + size]))

    def watch(self, future: ChunkFuture) -> None:
        with self.lock:
            self.futures.add(future)
        if self.result.cancelled():
            future.cancel()

    def absorb(self, indices: list[int], future: ChunkFuture, failure_of: FailureOf) -> None:
        """Store a finished chunk's rewards and submit its unfinished completions again.

        Runs as a callback, where an exception would be lost and callers would wait for ever; so any
        exception becomes the job's result.
        """
        with self.lock:
            self.futures.discard(future)
        if self.result.done():
            return
        try:
            remaining = self.take(indices, future, failure_of)
            if remaining:
                self.submit(self, remaining)
        except BaseException as error:
            self.fail(error)

    def take(self, indices: list[int], future: ChunkFuture, failure_of: FailureOf) -> list[int]:
        """Store the chunk's rewards; returns the indices without one."""
        try:
            rewards = future.result(timeout=0)
        except (CancelledError, BrokenProcessPool):
            return indices  # lost because the pool was replaced
        except TimeoutError:
            position, reward = failure_of("timeout", "")
        except ProcessExpired as death:
            position, reward = failure_of("error", f"exit code {death.exitcode}")
        else:
            self.store(indices[: len(rewards)], rewards)
            return indices[len(rewards) :]
        self.store([indices[position]], [reward])
        return indices[:position] + indices[position + 1 :]

    def store(self, indices: Sequence[int], rewards: Sequence[Reward]) -> None:
        with self.lock:
            for index, reward in zip(indices, rewards, strict=True):
                assert self.rewards[index] is None, f"completion {index} was scored twice"
                self.rewards[index] = reward
            self.num_missing -= len(indices)
            is_complete = self.num_missing == 0
        if is_complete:
            self.finish()

    def finish(self) -> None:
        with contextlib.suppress(InvalidStateError):  # cancelled just now: no caller is waiting
            self.result.set_result([reward for reward in self.rewards if reward is not None])

    def fail(self, error: BaseException) -> None:
        """End the job with an error, and its tasks with it."""
        try:
            self.result.set_exception(error)
        except InvalidStateError:
            return
        self.cancel_tasks()

    def forget_if_cancelled(self, result: Future[list[Reward]]) -> None:
        if result.cancelled():
            self.cancel_tasks()

    def cancel_tasks(self) -> None:
        with self.lock:
            futures = list(self.futures)
        for future in futures:
            future.cancel()


FailureOf = Callable[[RewardStatus, str], tuple[int, Reward]]
"""From what happened to (position in the chunk, its reward)."""


def failure(
    status: RewardStatus, what: str, *, check: str, position: int, deadline_s: float
) -> tuple[int, Reward]:
    """The reward of the completion at which a process hung or died."""
    if status == "timeout":
        detail = f"{check} took longer than rewards.deadline_s = {deadline_s:g} s and was killed"
    else:
        detail = f"{check} ended its process ({what})"
    return position, failed(status, detail)


def closed_error() -> RewardError:
    return RewardError("The reward pool was closed while completions were waiting to be scored.")
