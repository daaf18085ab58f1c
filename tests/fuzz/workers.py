"""Runs cases in processes of their own, which a case may take down."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from tests.fuzz.campaign import CASE_S, Finding, Outcome, run_cases
from tests.fuzz.target import target_named

BATCH = 250
"""Cases that a process is given at a time."""
LOST_S = 60 + 3 * CASE_S
"""Longest time without another case, the start of a process included."""


def campaign(names: Sequence[str], count: int, seed: int, jobs: int) -> dict[str, Outcome]:
    """`count` cases of each target, by so many processes."""
    outcomes = {name: Outcome() for name in names}
    batches = [
        Batch(name, range(start, min(start + BATCH, count)))
        for start in range(0, count, BATCH)
        for name in names
    ]
    taking = threading.Lock()

    def work() -> None:
        with closing(Worker(seed)) as worker:
            while True:
                with taking:
                    if not batches:
                        return
                    batch = batches.pop()
                outcome, again = worker.run(batch)
                with taking:
                    outcomes[batch.target].add(outcome)
                    batches.extend(again)

    with ThreadPoolExecutor(jobs) as pool:
        for done in [pool.submit(work) for _ in range(jobs)]:
            done.result()
    return outcomes


@dataclass(frozen=True, slots=True)
class Batch:
    """Some of a target's cases."""

    target: str
    numbers: range


class Worker:
    """A process that runs batches, and another in its place where a case takes it down."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.context = multiprocessing.get_context("spawn")
        self.position = self.context.RawValue("q", 0)  # number of the case that runs
        self.start()

    def start(self) -> None:
        self.pipe, theirs = self.context.Pipe()
        arguments = (theirs, self.position, self.seed)
        self.process = self.context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def run(self, batch: Batch) -> tuple[Outcome, list[Batch]]:
        """What came of a batch; of one that took the process down its other cases, to run again."""
        self.position.value = batch.numbers.start
        self.pipe.send(batch)
        seen, seen_at = -1, time.monotonic()
        while time.monotonic() - seen_at < LOST_S:
            try:
                if self.pipe.poll(0.5):
                    return self.pipe.recv(), []
            except (EOFError, OSError):
                break
            if self.position.value != seen:
                seen, seen_at = self.position.value, time.monotonic()
        self.close()
        number = self.position.value
        self.start()
        lost = Outcome()
        lost.note(Finding(batch.target, "a lost process", number, f"exit {self.exit_code}"))
        around = (range(batch.numbers.start, number), range(number + 1, batch.numbers.stop))
        return lost, [Batch(batch.target, some) for some in around if some]

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.exit_code = self.process.exitcode


def serve(pipe: Connection, position: Any, seed: int) -> None:
    """The process's work."""

    def noted(numbers: range) -> Iterator[int]:
        for position.value in numbers:
            yield position.value

    while True:
        try:
            batch: Batch = pipe.recv()
        except EOFError:
            return
        pipe.send(run_cases(target_named(batch.target), noted(batch.numbers), seed=seed))
