"""Measures which architectures train, and their weight sync to engines: one process per row.

    python -m benchmarks.architectures --write

Resumable: a row in the file is not measured again without `--again`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.architectures.page import describe, root_cause
from benchmarks.architectures.zoo import ARCHITECTURES
from benchmarks.commands import CommandFailed, run_command, stop_on_sigterm
from benchmarks.machine import REPOSITORY, machine
from benchmarks.measured_page import write_measured

RESULTS = REPOSITORY / "docs" / "architectures.json"
PAGE = REPOSITORY / "docs" / "architectures.md"
DEADLINE_S = 240
TITLE = "Model architectures"
COMMAND = "make architectures"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 where a row could not be measured at all."""
    args = parse(argv)
    stop_on_sigterm()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": {}}
    failures = []
    for key in [architecture.key for architecture in ARCHITECTURES]:
        row = results["rows"].get(key)
        if args.page_only or (args.only and key not in args.only):
            continue
        if not args.again and is_done(row, with_engine=not args.without_engine):
            continue
        try:
            row = measure(key, without_engine=args.without_engine)
        except CommandFailed as error:
            failures.append(key)
            print(f"{key}: {error}", file=sys.stderr, flush=True)
            continue
        print(key, json.dumps(row), flush=True)
        results["rows"][key] = row
        save(results)
    if args.write:
        save(results)
        write_measured(PAGE, describe(results["rows"], results["facts"]), title=TITLE)
    return 1 if failures else 0


def is_done(row: dict[str, Any] | None, *, with_engine: bool) -> bool:
    """Was all of a row measured that can be?"""
    if row is None:
        return False
    return not with_engine or "engine" in row or row["learner"]["outcome"] == "refused"


def measure(key: str, *, without_engine: bool) -> dict[str, Any]:
    """One row, in a process of its own.

    Raises:
        CommandFailed: it died or took too long.
    """
    command = [sys.executable, "-m", "benchmarks.architectures.measure", key]
    log = REPOSITORY / "runs" / "architectures" / f"{key}.log"
    output = run_command(
        [*command, *(["--without-engine"] if without_engine else [])],
        log=log,
        deadline_s=DEADLINE_S,
        environment={"PYTHONPATH": str(REPOSITORY)},
    )
    return read_row(output)


def read_row(output: str) -> dict[str, Any]:
    """The row that a measurement printed last, with why its engine failed."""
    row: dict[str, Any] = json.loads(output.splitlines()[-1])
    engine = row.get("engine")
    if engine is not None and engine["status"] != "compared":
        engine["reason"] = root_cause(output) or engine["reason"]
    return row


def save(results: dict[str, Any]) -> None:
    results["facts"] = {**machine(), "command": COMMAND}
    Path(RESULTS).write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    keys = [architecture.key for architecture in ARCHITECTURES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.architectures", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=keys, default=[], metavar="KEY")
    parser.add_argument("--again", action="store_true", help="measure rows that are there, too")
    parser.add_argument("--without-engine", action="store_true", help="the learner alone")
    parser.add_argument("--write", action="store_true", help="write docs/architectures.md")
    parser.add_argument("--page-only", action="store_true", help="of the rows that are there")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
