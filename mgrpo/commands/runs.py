"""`mgrpo runs`: the runs of this machine; `status` and `logs` of one of them.

Light to import: the command imports heavy packages when it runs.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mgrpo.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from mgrpo.storage.run_list import RunSummary

RUNS_DIR = "runs"
TABLE_WIDTH = 200
ACTOR_NAME = ":actor_name:"
LAST_ALERTS = 3


def add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", metavar="DIR", default=RUNS_DIR, help="default: runs")
    parser.add_argument("--json", action="store_true", help="a list of runs, the newest at the end")
    parser.set_defaults(run_command=run_runs)


def run_runs(args: argparse.Namespace) -> int:
    from mgrpo.storage.run_list import runs_in

    folder = Path(args.dir)
    runs = runs_in(folder)
    if args.json:
        print(json.dumps([asdict(run) for run in runs], indent=2))
    elif runs:
        show_table(runs)
    else:
        print(f"There is no run in {folder.resolve()}. mgrpo train quickstart makes one.")
    return 0


def show_table(runs: Sequence[RunSummary]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:  # a log or a pipe: nothing to fit into
        console.width = TABLE_WIDTH
    console.print(runs_table(runs))


def runs_table(runs: Sequence[RunSummary]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from mgrpo.report.words import MISSING, duration, percent

    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    for head in ("run", "method", "state", "step", "training", "held-out", "took", "last change"):
        table.add_column(head, no_wrap=True)
    for run in runs:
        steps = f"{run.num_done}/{run.num_steps}" if run.num_steps else str(run.num_done)
        heldout = MISSING
        if run.heldout_now is not None or run.heldout_before is not None:
            heldout = f"{percent(run.heldout_before)} → {percent(run.heldout_now)}"
        table.add_row(
            *map(Text, (run.name, run.method, run.state, steps, percent(run.train_accuracy))),
            Text(heldout),
            Text(duration(run.wall_s)),
            Text(f"{duration(run.age_s)} ago"),
        )
    return table


def local_run(name: str) -> Path | None:
    """The folder of a run of this machine, by name or path; None: there is none."""
    from mgrpo.errors import RunDirectoryError
    from mgrpo.storage.files import is_url
    from mgrpo.storage.run_directory import find_run

    if is_url(name):
        return None
    try:
        return find_run(name, RUNS_DIR)
    except RunDirectoryError:
        return None


def show_local_status(run_dir: Path, *, as_json: bool) -> int:
    """Where a run is, its outcome so far, and what to do with it."""
    from mgrpo.metrics.log import read_alarms, read_evaluations
    from mgrpo.report.outcome import outcome_sentence
    from mgrpo.storage.run_list import summary_of

    summary = summary_of(run_dir)
    if as_json:
        print(json.dumps(asdict(summary), indent=2))
        return 0
    show_table([summary])
    if outcome := outcome_sentence(read_evaluations(run_dir)):
        print(f"\n{outcome}")
    if summary.ended_early:
        print(f"\nended early: {summary.ended_early}")
    alarms = read_alarms(run_dir)[-LAST_ALERTS:]
    if alarms:
        print("\nlast alerts:\n" + "\n".join(str(alarm["message"]) for alarm in alarms))
    print(f"\nfiles: {run_dir}; page: mgrpo report {summary.name}")
    return 0


def show_local_logs(run_dir: Path) -> int:
    """The logs of a run's actors, one after the other.

    Raises:
        DataError: there are none.
    """
    files = sorted(file for file in (run_dir / "logs").glob("*") if file.is_file())
    if not files:
        raise DataError(
            f"There are no logs in {run_dir / 'logs'}: the actors' logs are put there at the end "
            "of a run. What the run itself prints is on its terminal."
        )
    for file in files:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.removeprefix(ACTOR_NAME) for line in lines if line.startswith(ACTOR_NAME)]
        shown = [line for line in lines if not line.startswith((ACTOR_NAME, ":job_id:"))]
        if shown:
            print(f"==> {names[0] if names else 'actor'} · {file} <==")
            print("\n".join(shown) + "\n")
    return 0
