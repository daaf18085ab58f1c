"""Fuzzes what reads files and replies, in processes of their own.

    python -m tests.fuzz --cases 100000 --seed 0
    python -m tests.fuzz --only recipes checkpoints --cases 2000
    python -m tests.fuzz --case recipes 174              # that case alone, with its traceback

A case is a valid file that a seeded generator has damaged. It must end without an error or with a
clear one, within 10 s, and change no file outside its folder. A process that a case takes down, or
hangs in code that no signal reaches, is replaced. The last line is one JSON object; the exit code
is 1 if there is a finding.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.fuzz.campaign import CASE_S, Finding, Outcome, case_of, run_cases
from tests.fuzz.target import MODULES, target_named

BATCH = 250
"""Cases that a process is given at a time."""
LOST_S = 60 + 3 * CASE_S
"""Longest time without another case, the start of a process included."""


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    if args.case:
        return show_case(args.case[0], int(args.case[1]), args.seed)
    chosen = args.only or list(MODULES)
    began = time.monotonic()
    outcomes = campaign(chosen, args.cases // len(chosen), args.seed, args.jobs)
    seconds = time.monotonic() - began
    for name, outcome in outcomes.items():
        show(name, outcome)
    cases = sum(one.cases for one in outcomes.values())
    found = sum(len(one.findings) for one in outcomes.values())
    result = {
        "cases": cases,
        "findings": found,
        "seconds": round(seconds, 1),
        "cases_per_s": round(cases / seconds, 1),
        "seed": args.seed,
        "targets": {
            name: {"cases": one.cases, "read": one.read, "refused": one.refused}
            for name, one in outcomes.items()
        },
    }
    print(json.dumps(result))
    return 1 if found else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = list(MODULES)
    parser = argparse.ArgumentParser(description="Fuzz what reads files and replies.")
    parser.add_argument("--cases", type=int, default=100_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--only", nargs="+", choices=names, metavar="TARGET", help=f"of {names}")
    parser.add_argument("--case", nargs=2, metavar=("TARGET", "NUMBER"), help="show one case")
    return parser.parse_args(arguments)


def show_case(name: str, number: int, seed: int) -> int:
    target = target_named(name)
    case = case_of(target, target.seeds(), number, seed)
    print(f"{case.name}: {case.data[:2000]!r}")
    with tempfile.TemporaryDirectory() as folder:
        target.read(Path(folder), case)
    return 0


def show(name: str, outcome: Outcome) -> None:
    print(f"{name}: {outcome.cases} cases, {outcome.read} read, {outcome.refused} refused")
    for found in sorted(outcome.findings.values()):
        times = outcome.times_found[found.error]
        print(f"  {found.error}, {times} times, first in case {found.number}: {found.message}")


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


if __name__ == "__main__":
    sys.exit(main())
