"""Records five steps of every recipe by the command line, into `runs.json`: real engines, checks
and learner, the shipped policy, quickstart's problems.

    python -m tests.same_numbers.record_runs                   # what is missing; an hour or more
    python -m tests.same_numbers.record_runs methods/gspo      # these, again

Run it on the code whose numbers are to be kept. What is there stays, recipe by recipe, so it may
be stopped at any time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.same_numbers.adapter import run_arguments, steps_of_run
from tests.same_numbers.cases import CASES
from tests.same_numbers.record import REPOSITORY
from tests.same_numbers.worker import compact, rounded

FILE = Path(__file__).with_name("runs.json")
DEADLINE_S = 900


def run(recipe: str) -> list[dict[str, Any]]:
    """The numbers of each step of a recipe.

    Raises:
        RuntimeError: the command failed or did not end in time; with the end of what it said.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = run_arguments(CASES[recipe], folder)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "mgrpo", *arguments],
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=DEADLINE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(
                f"{recipe} did not end within {DEADLINE_S} s:\n{error.output}"
            ) from error
        if done.returncode != 0:
            raise RuntimeError(
                f"{recipe} ended with code {done.returncode}:\n{done.stdout[-3000:]}"
            )
        found: list[dict[str, Any]] = rounded(steps_of_run(folder))
        return found


def recorded() -> dict[str, list[dict[str, Any]]]:
    """The steps of each recipe that there is a record of."""
    if not FILE.exists():
        return {}
    found: dict[str, list[dict[str, Any]]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def keep(recipe: str, steps: list[dict[str, Any]]) -> None:
    """Add a recipe to the record, or replace it; one line each."""
    runs = recorded() | {recipe: steps}
    lines = [f"{json.dumps(name)}:{compact(runs[name]).strip()}" for name in sorted(runs)]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def main(recipes: Sequence[str]) -> int:
    """Returns the number of recipes that failed."""
    num_failed = 0
    for recipe in recipes or [name for name in CASES if name not in recorded()]:
        began = time.monotonic()
        try:
            keep(recipe, run(recipe))
        except RuntimeError as error:
            num_failed += 1
            print(error, file=sys.stderr)
        print(f"{recipe}: {time.monotonic() - began:.0f} s", flush=True)
    return num_failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
