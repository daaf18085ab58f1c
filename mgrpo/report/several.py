"""One page about several runs: their outcomes, what differs in their recipes, and their curves in
the same charts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mgrpo.report.chart import Chart, Series, SeriesKind
from mgrpo.report.curves import COLORS, Curves, comparable
from mgrpo.report.outcome import accuracy_label, first_and_last, gain, value_at
from mgrpo.report.page import facts_of, rendered, written_to
from mgrpo.report.run_data import RunData, load_run
from mgrpo.report.words import percent, points

NOT_COMPARED = ("name", "description", "method", "paper", "output")
CHARTS = (
    ("layer{layer}/accuracy", "Accuracy in training, sampled, layer {layer}", "%"),
    ("heldout", "Held-out accuracy, turn {layer}", "%"),
    ("layer{layer}/reward_mean", "Mean reward, layer {layer}", "reward"),
    ("layer{layer}/completion_tokens_mean", "Completion length, layer {layer}", "tokens"),
    ("layer{layer}/zero_variance_fraction", "Groups with equal rewards, layer {layer}", "%"),
    ("learner/entropy", "Entropy", "nats"),
    ("learner/grad_norm", "Gradient norm", "norm"),
    ("seconds/step", "Time of a step", "seconds"),
)
"""Metric, title and unit, the most telling first."""
Points = Mapping[int, float | None]
"""Values by step."""


def write_comparison(run_dirs: Sequence[Path], path: Path) -> Path:
    """Write the page about these runs, in their order.

    Raises:
        RunDirectoryError: a directory holds no run, or a damaged one.
    """
    return written_to(path, comparison_page(run_dirs))


def comparison_page(run_dirs: Sequence[Path], *, live_state: str = "") -> str:
    """The page (see `write_comparison`), which follows the runs where it is served
    (`live_state`: see `rendered`)."""
    runs = named([load_run(folder) for folder in run_dirs])
    return rendered(
        "several.html.j2",
        title=" · ".join(runs),
        names=list(runs),
        columns=["Run", "Method", "Steps", *turn_labels(runs), "Generated", "Running time"],
        rows=[outcome_row(name, run, len(turn_labels(runs)) - 1) for name, run in runs.items()],
        differences=differences([run.config for run in runs.values()]),
        charts=list(charts(runs)),
        live_state=live_state,
    )


def named(runs: Sequence[RunData]) -> dict[str, RunData]:
    """The runs by their folders' names, with the folder above where two are called alike."""
    names = [run.run_dir.resolve().name for run in runs]
    folders = [run.run_dir.resolve() for run in runs]
    return {
        name if names.count(name) == 1 else f"{folder.parent.name}/{name}": run
        for name, folder, run in zip(names, folders, runs, strict=True)
    }


def turn_labels(runs: Mapping[str, RunData]) -> list[str]:
    """The columns of the accuracies, and of the gain."""
    most = max(run.num_layers for run in runs.values())
    return [accuracy_label(turn).split(", ")[-1] for turn in range(most)] + ["Δ"]


def outcome_row(name: str, run: RunData, num_turns: int) -> list[str]:
    before, after = first_and_last(run.evaluations)
    facts = facts_of(run)
    cells = []
    for turn in range(num_turns):
        shares = [value_at((one or {}).get("acc"), turn) for one in (before, after)]
        cells.append(" → ".join(map(percent, shares)))
    added = points(gain(after)) if after else points(None)
    return [
        name,
        facts["Method"],
        facts["Steps"],
        *cells,
        added,
        facts["Generated"],
        facts["Running time"],
    ]


def differences(configs: Sequence[Mapping[str, object]]) -> dict[str, list[str]]:
    """Key -> its value in each recipe, for the keys in which they are not all alike."""
    flat = [dict(leaves(config)) for config in configs]
    keys = dict.fromkeys(key for one in flat for key in one)
    found = {key: [one.get(key, "") for one in flat] for key in keys}
    return {
        key: values
        for key, values in found.items()
        if len(set(values)) > 1 and key.split(".")[0] not in NOT_COMPARED
    }


def leaves(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Every value of a recipe as text, by its dotted key; entries of a list by name or number."""
    inner: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        inner = list(value.items())
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        inner = [
            (str(one.get("name", place)) if isinstance(one, Mapping) else str(place), one)
            for place, one in enumerate(value)
        ]
    if not inner:
        yield path, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    for key, one in inner:
        yield from leaves(one, f"{path}.{key}" if path else str(key))


def charts(runs: Mapping[str, RunData]) -> Iterator[Chart]:
    """The charts that at least one run has values for."""
    curves = {name: Curves(run) for name, run in runs.items() if run.metrics}
    most = max(run.num_layers for run in runs.values())
    for metric, title, unit in CHARTS:
        per_layer = "{layer}" in title
        for layer in range(1, most + 1 if per_layer else 2):
            lines = {
                name: measured(curve.run, layer)
                if metric == "heldout"
                else dict(zip(curve.steps, curve.column(metric.format(layer=layer)), strict=True))
                for name, curve in curves.items()
            }
            kind: SeriesKind = "mark" if metric == "heldout" else "line"
            yield from chart_of(title.format(layer=layer), unit, lines, kind)


def measured(run: RunData, turn: int) -> Points:
    """Held-out accuracy of a turn by the number of steps before it."""
    accs = comparable(run.evaluations)
    return {
        row["step"]: value_at(acc, turn - 1) for row, acc in zip(run.evaluations, accs, strict=True)
    }


def chart_of(
    title: str, unit: str, lines: Mapping[str, Points], kind: SeriesKind
) -> Iterator[Chart]:
    steps = sorted({step for line in lines.values() for step in line})
    series = [
        Series(
            label=name,
            values=[line.get(step) for step in steps],
            color=place % len(COLORS),
            kind="dash" if kind == "line" and place >= len(COLORS) else kind,
        )
        for place, (name, line) in enumerate(lines.items())
    ]
    if known := [line for line in series if line.known]:
        names = list(map(str, steps))
        yield Chart(title=title, unit=unit, steps=steps, step_names=names, series=known)
