"""`mgrpo sweep`: trains a recipe with every combination of some values, one run after the other.

Light to import: the command imports heavy packages when it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import re
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from mgrpo.errors import ConfigError, ConfigFault, MgrpoError, RunInterrupted
from mgrpo.records.json_object import JsonObject

if TYPE_CHECKING:
    from mgrpo.config import RunConfig
    from mgrpo.evaluation.run_results import Group, RunResult
    from mgrpo.evaluation.tables import TextTable

EXAMPLES = """\
examples:
  mgrpo sweep quickstart learner.learning_rate=1e-4,3e-4 seed=0,1,2
  mgrpo sweep mine layers.correct.group_size=2,4,8 steps=50 --metric layer2/accuracy
  mgrpo sweep mine seed=0,1,2 --list       what is done and what is left

Runs are in runs/SWEEP/; mgrpo runs --dir runs/SWEEP lists them, mgrpo compare tests differences.
The same command resumes: finished runs with the same settings are kept, a stopped one goes on.
"""
EXAMPLE = "Example: mgrpo sweep quickstart learner.learning_rate=1e-4,3e-4 seed=0,1,2"
SEED = "seed"
FAILED_EXIT_CODE = 1
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
OPENING, CLOSING, QUOTES = "[{(", "]})", "'\""


@dataclass(frozen=True)
class Trial:
    """One run of a sweep: what it changes, and the recipe with that."""

    changes: dict[str, str]  # swept keys alone
    config: RunConfig
    run_dir: Path

    @property
    def is_begun(self) -> bool:
        """Whether a run is there with its current settings."""
        from mgrpo.storage.run_directory import CONFIG_FILE, made_with

        return made_with(self.run_dir / CONFIG_FILE, self.config)

    @property
    def is_done(self) -> bool:
        """Whether that is finished."""
        from mgrpo.storage.run_list import state_of

        return self.is_begun and state_of(self.run_dir) == "finished"


def add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's file or name")
    parser.add_argument(
        "overrides",
        metavar="key=a,b,c",
        nargs="*",
        help="values to try, with commas between; one value alone is the same in all runs",
    )
    parser.add_argument("--name", metavar="SWEEP", help="default: RECIPE-sweep")
    parser.add_argument(
        "--metric", metavar="M", help="sort by it; default: held-out accuracy of the last layer"
    )
    parser.add_argument("--mode", choices=("max", "min"), default="max", help="which end is best")
    parser.add_argument("--list", action="store_true", help="show what is done and left; no run")
    parser.add_argument(
        "--overwrite", action="store_true", help="delete runs that have other settings"
    )
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    parser.set_defaults(run_command=run_sweep)


def run_sweep(args: argparse.Namespace) -> int:
    trials = trials_of(args.recipe, args.overrides, args.name)
    failed: dict[str, str] = {}
    if not args.list:
        try:
            with contextlib.redirect_stdout(sys.stderr if args.json else sys.stdout):
                failed = work(trials, overwrite=args.overwrite)
        except RunInterrupted as stop:
            print(f"{stop} The same command resumes the sweep.", file=sys.stderr)
            return stop.exit_code
    show(trials, failed, metric=args.metric, mode=args.mode, as_json=args.json)
    return FAILED_EXIT_CODE if failed else 0


def trials_of(recipe: str, overrides: Sequence[str], name: str | None) -> list[Trial]:
    """Every combination, each checked: nothing starts if one is impossible.

    Raises:
        ConfigError: nothing is swept, or a combination is not a valid recipe.
    """
    from mgrpo.config.load import load_recipe
    from mgrpo.storage.mirror import local_run_dir

    given = {key: values_of(text) for key, _, text in (one.partition("=") for one in overrides)}
    swept = {key: values for key, values in given.items() if len(values) > 1}
    fixed = [f"{key}={values[0]}" for key, values in given.items() if len(values) == 1]
    if not swept:
        reason = "no key has several values."
        fault = ConfigFault("key=a,b,c", " ".join(overrides) or "(none)", reason, EXAMPLE)
        raise ConfigError([fault], source="the command")
    base = load_recipe(recipe, fixed)
    folder = f"{base.output.runs_dir.rstrip('/')}/{name or f'{base.name}-sweep'}"
    trials = []
    for values in itertools.product(*swept.values()):
        changes = dict(zip(swept, values, strict=True))
        own = [f"{key}={value}" for key, value in changes.items()]
        where = [f"output.runs_dir={folder}", f"name='{trial_name(changes)}'"]
        config = load_recipe(recipe, [*fixed, *own, *where])
        trials.append(Trial(changes, config, local_run_dir(config.output, config.name)))
    return trials


def values_of(text: str) -> list[str]:
    """Values with commas between, each once; a comma in brackets or quotes is the value's own."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in QUOTES:
            quote = character
        else:
            depth += (character in OPENING) - (character in CLOSING)
        if character == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return list(dict.fromkeys(part.strip() for part in parts))


def trial_name(changes: dict[str, str]) -> str:
    """ "learning_rate_1e-4-seed_0": the last parts of the keys, as many as tell them apart."""
    words = []
    for key, value in changes.items():
        parts = key.split(".")
        length = 1
        while any(
            other != key and other.split(".")[-length:] == parts[-length:] for other in changes
        ):
            length += 1
        words.append(f"{'.'.join(parts[-length:])}_{value}")
    return re.sub("_+", "_", NOT_IN_NAMES.sub("_", "-".join(words))).strip("_.-")


def work(trials: Sequence[Trial], *, overwrite: bool) -> dict[str, str]:
    """Train what is left. Returns why runs failed, by name; the others go on.

    Raises:
        RunInterrupted: Ctrl-C or SIGTERM; the same command resumes.
    """
    from mgrpo.library.start import train_recipe

    failed: dict[str, str] = {}
    for place, trial in enumerate(trials, start=1):
        title = f"[{place}/{len(trials)}] {trial.config.name}"
        if trial.is_done:
            print(f"{title}: kept")
            continue
        print(f"\n{title}", flush=True)
        began = time.monotonic()
        try:
            train_recipe(trial.config, overwrite=overwrite and not trial.is_begun)
        except RunInterrupted:
            raise
        except Exception as error:  # of one run: the others can still be trained
            failed[trial.config.name] = str(error)
            if not isinstance(error, MgrpoError):
                traceback.print_exc()
            print(f"{title} failed: {error}", file=sys.stderr)
        else:
            print(f"{title}: {(time.monotonic() - began) / 60:.1f} min", flush=True)
    return failed


def show(
    trials: Sequence[Trial],
    failed: dict[str, str],
    *,
    metric: str | None,
    mode: str,
    as_json: bool,
) -> None:
    """One table of the runs that are there, the best first; seeds are averaged."""
    from mgrpo.evaluation.run_results import grouped_by_recipe, metrics_of, read_run

    runs = [read_run(one.run_dir) for one in trials if one.is_begun]
    runs = [run for run in runs if run.steps]
    left = [one.config.name for one in trials if not one.is_done]
    metrics = metrics_of(runs) if runs else []
    by = metric or (metrics[-1] if metrics else "")
    metrics = list(dict.fromkeys([*metrics, by])) if by else []
    groups = best_first(grouped_by_recipe(runs), by, mode)
    changes = {one.run_dir.resolve().name: one.changes for one in trials}
    if as_json:
        print(json.dumps(sweep_json(groups, changes, metrics, by, left, failed), indent=2))
        return
    from rich.console import Console

    from mgrpo.training.progress import print_tables

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    if groups:
        note = f"Sorted by {by}. {len(trials) - len(left)} of {len(trials)} runs are done."
        print_tables(console, [sweep_table(groups, changes, metrics)], note)
    for name in left:
        why = failed.get(name, "").partition("\n")[0]
        print(f"left: {name}" + (f" (failed: {why})" if why else ""))


def best_first(groups: Sequence[Group], metric: str, mode: str) -> list[Group]:
    """Those without the metric at the end."""

    def rank(group: Group) -> tuple[bool, float]:
        values = list(group.values(metric).values())
        mean = fmean(values) if values else 0.0
        return (not values, -mean if mode == "max" else mean)

    return sorted(groups, key=rank)


def sweep_table(
    groups: Sequence[Group], changes: dict[str, dict[str, str]], metrics: Sequence[str]
) -> TextTable:
    """A line for each recipe: the swept keys, the seeds, and each metric over them."""
    from mgrpo.commands.compare import mean_and_spread, short
    from mgrpo.evaluation.tables import TextTable

    keys = [key for key in next(iter(changes.values())) if key != SEED]
    rows = [
        [
            *(settings_of(group, changes)[key] for key in keys),
            ", ".join(str(run.config.seed) for run in group.runs),
            *(mean_and_spread(metric, list(group.values(metric).values())) for metric in metrics),
            progress_of(group.runs),
        ]
        for group in groups
    ]
    heads = [*keys, "seeds", *map(short, metrics), "steps"]
    return TextTable("Mean ± standard deviation over seeds", heads, rows)


def progress_of(runs: Sequence[RunResult]) -> str:
    """ "40/40", or "3 to 40 of 40"."""
    done = sorted({run.num_done for run in runs})
    planned = runs[0].config.steps
    return f"{done[0]}/{planned}" if len(done) == 1 else f"{done[0]} to {done[-1]} of {planned}"


def settings_of(group: Group, changes: dict[str, dict[str, str]]) -> dict[str, str]:
    own = changes[group.runs[0].name]
    return {key: value for key, value in own.items() if key != SEED}


def sweep_json(
    groups: Sequence[Group],
    changes: dict[str, dict[str, str]],
    metrics: Sequence[str],
    by: str,
    left: Sequence[str],
    failed: dict[str, str],
) -> JsonObject:
    from mgrpo.commands.compare import run_json

    return {
        "sorted_by": by,
        "rows": [
            {
                "settings": settings_of(group, changes),
                "values": {metric: group.values(metric) for metric in metrics},
                "runs": [run_json(run, metrics) for run in group.runs],
            }
            for group in groups
        ],
        "left": list(left),
        "failed": failed,
    }
