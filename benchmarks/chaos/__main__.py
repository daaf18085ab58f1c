"""Trains the shipped policy while processes, connections, disks and values fail, by a schedule.

    python -m benchmarks.chaos --faults 204 --seed 0        # goes on where it stopped
    python -m benchmarks.chaos --minutes 10                 # ... and begins no part after that
    python -m benchmarks.chaos --write                      # docs/results/reliability.md

A campaign is runs of 108 steps and 34 faults each, of the orders streamed and overlapped in turn,
and one run of either that nothing disturbs. A run that ends is started again by the same command,
as a supervisor of a cluster does. Its record is then checked: every problem that was drawn trained
once, in its step, or is counted as dropped; groups have the recipe's sizes; no process, port or
file is left; accuracies are within noise of the undisturbed run. Parts that are done are kept in
the work folder, so that the command continues, also with more faults. Disk faults need the right to
mount, clocks that jump a C compiler; where one is missing, its kinds are left out.

The last line of the output is one JSON object; the exit code is 1 if a check failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.chaos import clock
from benchmarks.chaos.comparison import violations
from benchmarks.chaos.page import page_lines, summary
from benchmarks.chaos.schedule import KINDS, NEED_COMPILER, NEED_ROOT, Part, campaign, undisturbed
from benchmarks.chaos.supervise import run_part
from benchmarks.chaos.work import write_json
from benchmarks.commands import stop_on_sigterm
from benchmarks.machine import REPOSITORY, Result, machine
from benchmarks.measured_page import publish

PAGE = REPOSITORY / "docs" / "results" / "reliability.md"


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    stop_on_sigterm()
    parts = campaign(args.faults, args.seed, args.kinds)
    began, records = time.monotonic(), []
    for part in (*undisturbed(parts), *parts):
        is_late = time.monotonic() - began > 60 * args.minutes
        record = recorded(part, args.work, args.seed, only_if_done=is_late)
        records += [record] if record else []
    result = numbers_of(records, seed=args.seed, asked=args.faults)
    text = "\n".join(page_lines(result))
    page = PAGE if args.write else None
    publish(result, text, page, title="Reliability", part=args.part)
    return 1 if result["violations"] else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train under a schedule of faults.")
    parser.add_argument("--faults", type=int, default=204, metavar="N", help="default: 204")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the schedule")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no further run after so many"
    )
    parser.add_argument("--kinds", nargs="+", metavar="KIND", choices=KINDS, help="of faults")
    parser.add_argument("--work", type=Path, metavar="DIR", help="default: runs/chaos-S")
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name} and its .json")
    parser.add_argument("--part", default="chaos", help="of that page; default: chaos")
    args = parser.parse_args(arguments)
    if args.faults < 1:
        parser.error("--faults must be at least 1")
    left_out = (
        *(() if os.geteuid() == 0 else NEED_ROOT),
        *(() if clock.is_possible() else NEED_COMPILER),
    )
    args.kinds = args.kinds or [kind for kind in KINDS if kind not in left_out]
    args.work = args.work or REPOSITORY / "runs" / f"chaos-{args.seed}"
    return args


def recorded(part: Part, work: Path, seed: int, *, only_if_done: bool) -> dict[str, Any] | None:
    """A part's record: of an earlier call, or made now; None: there is none, and none was asked."""
    file = work / f"{part.name}.json"
    if not file.is_file() and only_if_done:
        return None
    if not file.is_file():
        print(f"{part.name}, {part.order}, {part.num_steps} steps", file=sys.stderr, flush=True)
        record = run_part(part, work / part.name, seed)
        write_json(file, record | {"commit": machine()["commit"]})
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def numbers_of(records: Sequence[dict[str, Any]], *, seed: int, asked: int) -> Result:
    """The whole campaign's numbers."""
    references = {(one["order"], one["steps"]): one for one in records if not one["events"]}
    disturbed = [one for one in records if one["events"]]
    for one in records:
        one["violations"] = violations(one, references.get((one["order"], one["steps"])))
    return {
        "benchmark": "chaos",
        "seed": seed,
        "asked": asked,
        **summary(disturbed, list(references.values())),
        "violations": [f"{one['part']}: {text}" for one in records for text in one["violations"]],
        "commits": sorted({one["commit"] for one in records}),
        "command": " ".join(["python -m benchmarks.chaos", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
    }


if __name__ == "__main__":
    sys.exit(main())
