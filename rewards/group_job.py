"""Scores one group of completions in the reward processes.

Functions that score one completion get the group in chunks, because a task per completion costs
more than most checks. The deadline still applies to each completion. If a chunk's process hangs or
dies, its current completion becomes the timeout or the error, and the others are submitted again. A
chunk of slow checks returns the completions that it has not begun.

A function that scores the whole group gets it undivided, in a task of its own with one deadline: if
it hangs or dies, that is its outcome for all of the group.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace

from pebble import ProcessExpired

from mgrpo.errors import RewardError
from mgrpo.types import Reward, RewardStatus
from rewards.containment import EXIT_CODE_OF_RETIRED
from rewards.conventions import Group
from rewards.score import Outcome, failed

MAX_CHUNK = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The part of a group's work that one task does: some completions, for some terms."""

    indices: Sequence[int]  # of completions
    terms: Sequence[int]
    is_group: bool = False  # all completions at once


Cell = tuple[int, int, Outcome]
"""A completion, a term, and what it says."""
ChunkFuture = Future[list[list[Outcome]]]
Submit = Callable[["GroupJob", Piece], None]
Combine = Callable[[Mapping[int, Outcome]], Reward]


def chunk_size(num_texts: int, num_processes: int) -> int:
    """Completions per task: enough tasks to keep every process busy, none too small."""
    return max(1, min(MAX_CHUNK, num_texts // (2 * num_processes)))


def pieces_of(num_texts: int, takes_group: Mapping[int, bool], num_processes: int) -> list[Piece]:
    """A group's tasks.

    Args:
        num_texts: completions of the group.
        takes_group: of each term that scores it, whether its function scores them together.
        num_processes: that share the work.
    """
    everything = range(num_texts)
    alone = [
        Piece(indices=everything, terms=[term], is_group=True)
        for term, is_group in takes_group.items()
        if is_group
    ]
    divided = [term for term, is_group in takes_group.items() if not is_group]
    size = chunk_size(num_texts, num_processes)
    starts = range(0, num_texts, size) if divided else ()
    return [*alone, *(Piece(indices=everything[at : at + size], terms=divided) for at in starts)]


class GroupJob:
    """Collects what the terms say of one group; `result` is done when all have.

    Args:
        group: the completions.
        terms: of the reward, by number, those that score this group.
        submit: makes a task of a piece of the work.
        combine: one completion's reward from what each term says.
    """

    def __init__(
        self, group: Group, terms: Collection[int], submit: Submit, combine: Combine
    ) -> None:
        self.group = group
        self.submit = submit
        self.combine = combine
        self.outcomes: list[dict[int, Outcome]] = [{} for _ in group.texts]
        self.num_missing = len(group.texts) * len(terms)
        self.lock = threading.Lock()  # futures finish on several of the pool's threads
        self.futures: set[ChunkFuture] = set()
        self.result: Future[list[Reward]] = Future()
        self.result.add_done_callback(cancelling(self.futures, self.lock))

    def start(self, pieces: Sequence[Piece]) -> None:
        """Submit the whole group."""
        if not self.group.texts:
            self.result.set_result([])
            return
        for piece in pieces:
            self.submit(self, piece)

    def watch(self, future: ChunkFuture) -> None:
        with self.lock:
            self.futures.add(future)
        if self.result.cancelled():
            future.cancel()

    def absorb(self, piece: Piece, future: ChunkFuture, failure_of: FailureOf) -> None:
        """Store a finished task's outcomes and submit its unfinished completions again.

        Runs as a callback, where an exception would be lost and callers would wait for ever; so any
        exception becomes the job's result.
        """
        with self.lock:
            self.futures.discard(future)
        if self.result.done():
            return
        try:
            remaining = self.take(piece, future, failure_of)
            if remaining:
                self.submit(self, replace(piece, indices=remaining))
        except BaseException as error:
            self.fail(error)

    def take(self, piece: Piece, future: ChunkFuture, failure_of: FailureOf) -> Sequence[int]:
        """Store the task's outcomes; returns the completions without one."""
        try:
            rows = future.result(timeout=0)
        except (CancelledError, BrokenProcessPool):
            return piece.indices  # lost because the pool was replaced
        except TimeoutError:
            cells = failure_of("timeout", "")
        except ProcessExpired as death:
            if death.exitcode == EXIT_CODE_OF_RETIRED:
                return piece.indices
            cells = failure_of("error", f"exit code {death.exitcode}")
        else:
            cells = [
                (index, term, outcome)
                for index, row in zip(piece.indices, rows, strict=False)
                for term, outcome in zip(piece.terms, row, strict=True)
            ]
        self.store(cells)
        done = {index for index, *_ in cells}
        return [index for index in piece.indices if index not in done]

    def store(self, cells: Iterable[Cell]) -> None:
        with self.lock:
            for index, term, outcome in cells:
                row = self.outcomes[index]
                assert term not in row, f"completion {index} was scored twice by term {term}"
                row[term] = outcome
                self.num_missing -= 1
            is_complete = self.num_missing == 0
        if is_complete:
            self.finish()

    def finish(self) -> None:
        rewards = [self.combine(row) for row in self.outcomes]
        with contextlib.suppress(InvalidStateError):  # cancelled just now: no caller is waiting
            self.result.set_result(rewards)

    def fail(self, error: BaseException) -> None:
        """End the job with an error, and its tasks with it."""
        try:
            self.result.set_exception(error)
        except InvalidStateError:
            return
        cancel_all(self.futures, self.lock)


def cancelling(
    futures: set[ChunkFuture], lock: threading.Lock
) -> Callable[[Future[list[Reward]]], None]:
    """A callback that cancels a group's tasks when its result is cancelled.

    A future keeps its callbacks. This one does not refer to the job, so the job, its texts and its
    rewards are freed with their last use and not by a collection of garbage, in which the event
    loop stands still.
    """

    def cancel(result: Future[list[Reward]]) -> None:
        if result.cancelled():
            cancel_all(futures, lock)

    return cancel


def cancel_all(futures: set[ChunkFuture], lock: threading.Lock) -> None:
    with lock:
        running = list(futures)
    for future in running:
        future.cancel()


FailureOf = Callable[[RewardStatus, str], list[Cell]]
"""From what happened to the outcomes that it leaves."""


def failures(
    piece: Piece, position: int, status: RewardStatus, what: str, *, deadline_s: float
) -> list[Cell]:
    """What a process that hung or died leaves: for the completion that it was at, or for the group.

    Args:
        piece: its work.
        position: how far it was: completions times terms. The completion's other terms say nothing,
            as one that failed makes it useless.
        status: timeout, or error if it died.
        what: of its death.
        deadline_s: of the recipe.
    """
    if status == "timeout":
        detail = f"took longer than rewards.deadline_s = {deadline_s:g} s and was killed"
    else:
        detail = f"ended its process ({what})"
    reward = failed(status, detail)
    if piece.is_group:
        return [(index, term, reward) for index in piece.indices for term in piece.terms]
    index, current = divmod(position, len(piece.terms))
    return [
        (piece.indices[index], term, reward if number == current else None)
        for number, term in enumerate(piece.terms)
    ]


def closed_error() -> RewardError:
    return RewardError("The reward pool was closed while completions were waiting to be scored.")
