"""`mgrpo compare`: runs side by side, by recipe and seed, with a test of what differs.

Light to import: the command imports heavy packages when it runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from mgrpo.commands.runs import RUNS_DIR
from mgrpo.records.json_object import JsonObject

if TYPE_CHECKING:
    from mgrpo.evaluation.run_results import Contrast, Group, RunResult
    from mgrpo.evaluation.tables import TextTable

PATTERN = set("*?[")
LONGEST_VALUE = 32  # characters
EXAMPLES = """\
examples:
  mgrpo compare wide narrow              two runs: a test over their held-out problems
  mgrpo compare 'runs/wide-*' narrow-*   recipes with several seeds: a test over seeds
  mgrpo compare a b --metric learner/entropy --json

Runs whose recipes differ in the seed alone are one group. The first group is compared with each
other one: by a paired t-test over seeds that both have, if there are two or more; else by Welch's
t-test if both have several; else, run against run, over the same held-out problems (exact McNemar
for one greedy answer to each, a paired bootstrap otherwise).
"""


def add_compare(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="folders or names under runs/; * matches several"
    )
    parser.add_argument(
        "--metric",
        metavar="M",
        action="append",
        default=[],
        help="also this metric of the steps, as a mean over the last tenth of them; repeatable",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    parser.set_defaults(run_command=run_compare)


def run_compare(args: argparse.Namespace) -> int:
    from mgrpo.evaluation.run_results import grouped_by_recipe, metrics_of, read_run

    runs = [read_run(folder) for folder in folders_of(args.runs)]
    groups = grouped_by_recipe(runs)
    metrics = list(dict.fromkeys([*metrics_of(runs), *args.metric]))
    if args.json:
        print(json.dumps(comparison_json(runs, groups, metrics), indent=2))
        return 0
    from rich.console import Console

    from mgrpo.training.progress import print_tables

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    print_tables(console, comparison_tables(runs, groups, metrics), NOTE)
    return 0


NOTE = (
    "Held-out accuracies are those of the newest evaluation; other metrics are means over the last "
    "tenth of the steps. With few seeds only large differences can be told from chance, and of "
    "twenty comparisons one is below p = 0.05 by chance alone."
)


def folders_of(names: Sequence[str]) -> list[Path]:
    """The runs' folders, each once; a pattern stands for those that match it.

    Raises:
        RunDirectoryError: there is no such run.
    """
    from mgrpo.storage.run_directory import CONFIG_FILE, find_run

    folders: list[Path] = []
    for name in names:
        matches = [
            file.parent
            for root in (Path(), Path(RUNS_DIR))
            for file in matching(root / name / CONFIG_FILE)
        ]
        folders += (matches if PATTERN & set(name) else []) or [find_run(name)]
    return list(dict.fromkeys(folders))


def matching(pattern: Path) -> list[Path]:
    """The files of a pattern, relative or absolute."""
    top = Path(pattern.anchor)
    return sorted(top.glob(str(pattern.relative_to(top))))


def comparison_tables(
    runs: Sequence[RunResult], groups: Sequence[Group], metrics: Sequence[str]
) -> list[TextTable]:
    """The runs; means over seeds; tests against the first group; settings that differ."""
    tables = [run_table(runs, groups, metrics)]
    if any(len(group.runs) > 1 for group in groups):
        tables.append(seed_table(groups, metrics))
    if len(groups) > 1:
        tables += [test_table(groups, metrics), setting_table(groups)]
    return tables


def run_table(
    runs: Sequence[RunResult], groups: Sequence[Group], metrics: Sequence[str], title: str = "Runs"
) -> TextTable:
    """A line for each run. A group is named by its letter."""
    from mgrpo.evaluation.tables import TextTable
    from mgrpo.report.words import duration

    letters = {id(run): letter(place) for place, one in enumerate(groups) for run in one.runs}
    heads = ["run", "recipe", "seed", "state", "steps"]
    heads += [head for metric in metrics for head in heads_of(metric)]
    rows = [
        [
            run.name,
            letters[id(run)],
            str(run.config.seed),
            run.state,
            f"{run.num_done}/{run.config.steps}",
            *(cell for metric in metrics for cell in cells_of(run, metric)),
            duration(run.wall_s),
        ]
        for run in runs
    ]
    return TextTable(title, [*heads, "took"], rows)


def letter(place: int) -> str:
    """A, B, ..., Z, A1, B1, ..."""
    return chr(ord("A") + place % 26) + (str(place // 26) if place >= 26 else "")


def short(metric: str) -> str:
    """heldout/layer2/accuracy -> Acc@t2; other metrics by their names."""
    layer = heldout_layer(metric)
    return metric if layer is None else f"Acc@t{layer}"


def heads_of(metric: str) -> list[str]:
    if heldout_layer(metric) is None:
        return [metric]
    return [f"{short(metric)} before", "after", "best (step)"]


def cells_of(run: RunResult, metric: str) -> list[str]:
    from mgrpo.report.words import MISSING, percent

    layer = heldout_layer(metric)
    if layer is None:
        return [written(metric, run.value(metric))]
    best = run.best(layer)
    best_text = MISSING if best is None else f"{percent(best.value)} ({best.num_steps})"
    return [percent(run.before(layer)), percent(run.value(metric)), best_text]


def heldout_layer(metric: str) -> int | None:
    from mgrpo.config.watched import HELDOUT_ACCURACY

    found = HELDOUT_ACCURACY.fullmatch(metric)
    return int(found[1]) if found else None


def written(metric: str, value: float | None) -> str:
    from mgrpo.report.words import number, percent

    return percent(value) if metric.endswith("accuracy") else number(value)


def change(metric: str, value: float | None) -> str:
    from mgrpo.report.words import number, points

    return points(value) if metric.endswith("accuracy") else number(value)


def seed_table(groups: Sequence[Group], metrics: Sequence[str]) -> TextTable:
    from mgrpo.evaluation.tables import TextTable

    rows = [
        [
            f"{letter(place)}: {group.name}",
            ", ".join(str(run.config.seed) for run in group.runs),
            *(mean_and_spread(metric, list(group.values(metric).values())) for metric in metrics),
        ]
        for place, group in enumerate(groups)
    ]
    heads = ["recipe", "seeds", *map(short, metrics)]
    return TextTable("Means over seeds ± standard deviation", heads, rows)


def mean_and_spread(metric: str, values: Sequence[float]) -> str:
    if not values:
        return written(metric, None)
    spread = f" ± {change(metric, stdev(values)).lstrip('+')}" if len(values) > 1 else ""
    return written(metric, fmean(values)) + spread


def test_table(groups: Sequence[Group], metrics: Sequence[str]) -> TextTable:
    from mgrpo.evaluation.run_results import contrast_of
    from mgrpo.evaluation.tables import TextTable
    from mgrpo.report.words import MINUS

    rows = [
        [
            f"{letter(place)} {MINUS} A",
            short(metric),
            *test_cells(contrast_of(groups[0], group, metric)),
        ]
        for place, group in enumerate(groups)
        if place
        for metric in metrics
    ]
    heads = ["", "metric", "difference", "95 % interval", "p", "pairs", "test"]
    return TextTable(f"Against A: {groups[0].name}", heads, rows)


def test_cells(found: Contrast) -> list[str]:
    from mgrpo.report.words import MISSING

    interval = MISSING
    if found.interval is not None:
        interval = " to ".join(change(found.metric, end) for end in found.interval)
    p_value = MISSING
    if found.p_value is not None:
        p_value = "< 0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}"
    pairs = f"{found.pairs} {found.level}" if found.pairs else MISSING
    return [change(found.metric, found.difference), interval, p_value, pairs, found.test]


def setting_table(groups: Sequence[Group]) -> TextTable:
    from mgrpo.config.resume import as_written
    from mgrpo.evaluation.run_results import settings_that_differ
    from mgrpo.evaluation.tables import TextTable

    rows = [
        [path, *(clipped(as_written(value)) for value in values)]
        for path, values in settings_that_differ(groups).items()
    ]
    heads = ["key", *(letter(place) for place in range(len(groups)))]
    return TextTable("What differs in the recipes", heads, rows)


def clipped(text: str) -> str:
    """So that the keys beside it keep their room; --json has all of it."""
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def comparison_json(
    runs: Sequence[RunResult], groups: Sequence[Group], metrics: Sequence[str]
) -> JsonObject:
    """The same in plain values; differences are each group minus the first."""
    from mgrpo.evaluation.run_results import contrast_of, settings_that_differ

    return {
        "runs": [run_json(run, metrics) for run in runs],
        "groups": [
            {
                "name": group.name,
                "runs": [run.name for run in group.runs],
                "seeds": [run.config.seed for run in group.runs],
                "values": {metric: group.values(metric) for metric in metrics},
            }
            for group in groups
        ],
        "against_first": [
            {"group": group.name, **asdict(contrast_of(groups[0], group, metric))}
            for group in groups[1:]
            for metric in metrics
        ],
        "settings": settings_that_differ(groups),
    }


def run_json(run: RunResult, metrics: Sequence[str]) -> JsonObject:
    layers = {metric: layer for metric in metrics if (layer := heldout_layer(metric)) is not None}
    bests = {metric: run.best(layer) for metric, layer in layers.items()}
    return {
        "name": run.name,
        "path": str(run.path),
        "seed": run.config.seed,
        "state": run.state,
        "num_done": run.num_done,
        "num_steps": run.config.steps,
        "wall_s": run.wall_s,
        "values": {metric: run.value(metric) for metric in metrics},
        "before": {metric: run.before(layer) for metric, layer in layers.items()},
        "best": {metric: None if best is None else asdict(best) for metric, best in bests.items()},
    }
