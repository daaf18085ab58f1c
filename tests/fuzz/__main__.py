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
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.machine import REPOSITORY, machine, origin_lines
from benchmarks.measured_page import publish
from tests.fuzz.campaign import Outcome, case_of
from tests.fuzz.target import MODULES, target_named
from tests.fuzz.workers import campaign

PAGE = REPOSITORY / "docs" / "results" / "reliability.md"


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    if args.case:
        return show_case(args.case[0], int(args.case[1]), args.seed)
    chosen = args.only or list(MODULES)
    began = time.monotonic()
    outcomes = campaign(chosen, args.cases // len(chosen), args.seed, args.jobs)
    seconds = time.monotonic() - began
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
        "command": " ".join(["python -m tests.fuzz", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }
    lines = [line for name, outcome in outcomes.items() for line in described(name, outcome)]
    text = "\n".join([*lines, "", f"Seed {args.seed}.", *origin_lines(result)])
    publish(result, text, PAGE if args.write else None, title="Reliability", part="fuzz")
    return 1 if found else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = list(MODULES)
    parser = argparse.ArgumentParser(description="Fuzz what reads files and replies.")
    parser.add_argument("--cases", type=int, default=100_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--only", nargs="+", choices=names, metavar="TARGET", help=f"of {names}")
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name}")
    parser.add_argument("--case", nargs=2, metavar=("TARGET", "NUMBER"), help="show one case")
    args = parser.parse_args(arguments)
    if args.case and args.case[0] not in names:
        parser.error(f"--case: there is no target {args.case[0]!r}; there are {names}")
    return args


def show_case(name: str, number: int, seed: int) -> int:
    target = target_named(name)
    case = case_of(target, target.seeds(), number, seed)
    print(f"{case.name}: {case.data[:2000]!r}")
    with tempfile.TemporaryDirectory() as folder:
        target.read(Path(folder), case)
    return 0


def described(name: str, outcome: Outcome) -> Iterator[str]:
    yield f"- {name}: {outcome.cases:,} cases, {outcome.read:,} read, {outcome.refused:,} refused"
    for found in sorted(outcome.findings.values()):
        times = outcome.times_found[found.error]
        yield f"    - {found.error}, {times} times, first in case {found.number}: {found.message}"


if __name__ == "__main__":
    sys.exit(main())
