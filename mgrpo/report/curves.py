"""Which of a run's metrics share a chart, and under which words.

A metric that no chart names still shows, in the table of all other metrics.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from statistics import fmean
from typing import Any

from mgrpo.metrics.rows import Row
from mgrpo.report.chart import Chart, Series, Values, smoothing_window
from mgrpo.report.outcome import Evaluation
from mgrpo.report.run_data import RunData

NOT_METRICS = {"step", "wall_s", "cost", "policy_version"}
COLORS = range(6)
MAX_DOMAINS = len(COLORS)  # of more domains, the table of all other metrics tells
MAX_POINTS = 300  # more cannot be told apart on a chart 600 pixels wide


class Curves:
    """A run's metrics by step, as means of several steps where there are too many to show."""

    def __init__(self, run: RunData) -> None:
        self.run = run
        rows = [with_rest(row) for row in run.metrics]
        num_points = max(1, min(len(rows), MAX_POINTS))
        edges = sorted({round(at * len(rows) / num_points) for at in range(num_points + 1)})
        self.points = [rows[start:end] for start, end in pairwise(edges)]
        self.steps = [part[0]["step"] for part in self.points]
        self.step_names = [
            str(part[0]["step"]) if len(part) == 1 else f"{part[0]['step']} to {part[-1]['step']}"
            for part in self.points
        ]
        self.used: set[str] = set()

    def column(self, name: str) -> Values:
        """[points] the mean of one metric; None where no step of the point has it."""
        known = [[row[name] for row in part if row.get(name) is not None] for part in self.points]
        return [fmean(values) if values else None for values in known]

    def chart(
        self,
        title: str,
        unit: str,
        labels: Mapping[str, str],
        *,
        colors: Sequence[int] = COLORS,
        stacked: bool = False,
        **options: Any,
    ) -> list[Chart]:
        """The chart of those metrics, metric -> label, that the run has; [] where it has none."""
        series = []
        for index, (name, label) in enumerate(labels.items()):
            one = Series(
                label=label,
                values=self.column(name),
                color=colors[index % len(colors)],
                kind="bar" if stacked else "dash" if index % 2 else "line",
            )
            if one.known:
                self.used.add(name)
                series.append(one)
        steps, names = self.steps, self.step_names
        one_chart = Chart(
            title=title, unit=unit, steps=steps, step_names=names, series=series, **options
        )
        return [one_chart] if series else []

    def per_layer(self, metric: str) -> dict[str, str]:
        """The same metric of every layer."""
        layers = range(1, self.run.num_layers + 1)
        names = [f"layer{layer}/{metric}" for layer in layers]
        return dict(zip(names, map(self.run.layer_label, layers), strict=True))


def with_rest(row: Row) -> Row:
    """The row with the seconds that no phase accounts for. Phases that overlap leave none."""
    phases = sum(row.get(f"seconds/{phase}") or 0.0 for phase in ("rollout", "update", "weights"))
    rest = (row.get("seconds/step") or 0.0) - phases
    return {**row, "seconds/rest": rest} if rest > 0 else row


def curve_note(run: RunData) -> str:
    """How to read the lines, once for the whole section."""
    num_steps = len(run.metrics)
    parts = []
    if num_steps > MAX_POINTS:
        parts.append(f"Each point is the mean of about {num_steps / MAX_POINTS:.0f} steps.")
    window = smoothing_window(min(num_steps, MAX_POINTS))
    if window > 1:
        parts.append(f"Thick lines are running means over {window} points, thin lines the values.")
    parts.append(
        "Point at a chart, or focus it and use the arrow keys, to read single steps; drag across "
        "it to zoom in, and double-click to zoom out."
    )
    return " ".join(parts)


def accuracy(curves: Curves) -> list[Chart]:
    """The chart that stands beside the table of before and after."""
    note = "Lines: the completions sampled for training."
    labels = curves.per_layer("accuracy")
    charts = curves.chart("Accuracy by step", "%", labels, wide=True, note=note)
    return [with_heldout(chart, curves.run) for chart in charts]


def with_heldout(chart: Chart, run: RunData) -> Chart:
    """The chart with the held-out accuracies of every layer over its lines.

    A measurement stands at the point that holds its step; one outside the steps of the training
    gets a point of its own.
    """
    accs = comparable(run.evaluations)
    heldout = {
        layer: {
            evaluation["step"]: acc[layer - 1]
            for evaluation, acc in zip(run.evaluations, accs, strict=True)
            if len(acc) >= layer and acc[layer - 1] is not None
        }
        for layer in range(1, run.num_layers + 1)
    }
    if not any(heldout.values()):
        return chart
    first, last = chart.steps[0], run.metrics[-1]["step"]
    outside = {step for step in chain(*heldout.values()) if not first <= step <= last}
    steps = sorted(outside.union(chart.steps))
    names = dict(zip(chart.steps, chart.step_names, strict=True))
    lines = [
        replace(line, values=list(map(dict(zip(chart.steps, line.values, strict=True)).get, steps)))
        for line in chart.series
    ]
    for layer, measured in heldout.items():
        placed = {steps[bisect_right(steps, step) - 1]: acc for step, acc in measured.items()}
        label = f"{run.layer_label(layer)}, held-out"
        values = [placed.get(step) for step in steps]
        lines.append(Series(label=label, values=values, color=(layer - 1) % 6, kind="mark"))
    return replace(
        chart,
        steps=steps,
        step_names=[names.get(step, str(step)) for step in steps],
        series=[line for line in lines if line.known],
        note=f"Diamonds: held-out problems{phrases_note(run.evaluations)}. {chart.note}",
    )


def comparable(evaluations: Sequence[Evaluation]) -> list[list[float | None]]:
    """The accuracies of each evaluation, by turn, over the guidance phrases that all of them have.

    Evaluations during training have fewer phrases than those before and after.
    """
    common = common_phrases(evaluations)
    if not common:
        return [evaluation.get("acc", []) for evaluation in evaluations]
    return [
        [
            fmean(known) if (known := [acc for acc in turn if acc is not None]) else None
            for turn in zip(
                *(one["acc"] for one in evaluation["phrases"] if one["index"] in common),
                strict=True,
            )
        ]
        for evaluation in evaluations
    ]


def common_phrases(evaluations: Sequence[Evaluation]) -> set[int]:
    """Numbers of the phrases that every evaluation has; none where they are drawn."""
    phrases = [{one["index"] for one in row.get("phrases", [])} for row in evaluations]
    return set.intersection(*phrases) if phrases else set()


def phrases_note(evaluations: Sequence[Evaluation]) -> str:
    """Says that the chart has fewer phrases than some evaluations have."""
    common = common_phrases(evaluations)
    has_more = any(len(row.get("phrases", [])) > len(common) for row in evaluations)
    return ", with the guidance phrases that all evaluations have" if common and has_more else ""


def all_charts(curves: Curves) -> list[Chart]:
    """Every chart but the accuracy's, the most telling first."""
    return (
        transitions(curves)
        + verdicts(curves)
        + domains(curves)
        + sampling(curves)
        + learning(curves)
    )


def transitions(curves: Curves) -> list[Chart]:
    """What corrections do, for every layer from the second on and, in longer chains, for all."""
    last = curves.run.num_layers
    chains = [
        (f"transition/layer{layer}", f" · layer {layer}" if last > 2 else "")
        for layer in range(2, last + 1)
    ]
    if last > 2:
        chains.append(("transition/all", f" · first attempt to layer {last}"))
    charts: list[Chart] = []
    for prefix, suffix in chains:
        corrected = {f"{prefix}/wrong_to_right": "Wrong → right"}
        broken = {f"{prefix}/right_to_wrong": "Right → wrong"}
        kept = {f"{prefix}/right_to_right": "Right → right"}
        missed = {f"{prefix}/wrong_to_wrong": "Wrong → wrong"}
        others = {f"{prefix}/copy_fraction": "Copies the attempt", f"{prefix}/delta": "Gain"}
        treatment = {
            f"{prefix}/repaired_fraction": "Repairs a wrong attempt",
            f"{prefix}/confirmed_fraction": "Confirms a right attempt",
            f"{prefix}/copy_fraction_of_wrong": "Repeats a wrong answer",
        }
        changes, shares = corrected | broken | others, kept | corrected | broken | missed
        bars: dict[str, Any] = {"colors": (2, 0, 1, 5), "stacked": True, "full_share": True}
        note = "Shares of the corrections of wrong, of right and of wrong attempts."
        lines: dict[str, Any] = {"colors": (0, 2, 3), "note": note}
        charts += curves.chart(
            f"What corrections change{suffix}", "%", changes, colors=(0, 1, 3, 2)
        )
        charts += curves.chart(f"Attempt and correction{suffix}", "%", shares, **bars)
        charts += curves.chart(f"What becomes of an attempt{suffix}", "%", treatment, **lines)
    return charts


def verdicts(curves: Curves) -> list[Chart]:
    """How well the policy verifies its own attempts, for every verify layer."""
    charts: list[Chart] = []
    for layer in range(2, curves.run.num_layers + 1):
        shares = {
            f"verdict/layer{layer}/precision": "Wrong, of those rejected",
            f"verdict/layer{layer}/recall": "Rejected, of the wrong ones",
            f"verdict/layer{layer}/accepted_fraction": "Accepted",
            f"verdict/layer{layer}/unreadable_fraction": "Unreadable",
        }
        charts += curves.chart(f"Verdicts on attempts · layer {layer}", "%", shares)
    return charts


def domains(curves: Curves) -> list[Chart]:
    """Accuracy and gain of each domain, where there are not more than a chart can tell apart."""
    names = curves.run.domains
    if not 2 <= len(names) <= MAX_DOMAINS:
        return []
    charts: list[Chart] = []
    for layer in range(1, curves.run.num_layers + 1):
        suffix = f" · layer {layer}" if curves.run.num_layers > 1 else ""
        accuracies = {f"layer{layer}/domain/{name}/accuracy": name for name in names}
        gains = {f"transition/layer{layer}/domain/{name}/delta": name for name in names}
        charts += curves.chart(f"Accuracy by domain{suffix}", "%", accuracies)
        charts += curves.chart(f"Gain of corrections by domain{suffix}", "%", gains)
    return charts


def sampling(curves: Curves) -> list[Chart]:
    by_layer = {
        "reward_mean": ("Mean reward", "reward"),
        "completion_tokens_mean": ("Completion length", "tokens"),
        "truncated_fraction": ("Cut off at the limit", "%"),
        "selected_fraction": ("Completions that train", "%"),
        "zero_variance_fraction": ("Groups whose rewards are all equal", "%"),
    }
    checks = {
        "rewards/scored": "Scored",
        "rewards/unparsable": "Unparsable",
        "rewards/timeout": "Check timed out",
        "rewards/error": "Check failed",
    }
    bars: dict[str, Any] = {"colors": (0, 5, 4, 1), "stacked": True, "full_share": True}
    charts = [curves.chart(*words, curves.per_layer(name)) for name, words in by_layer.items()]
    return [*chain(*charts), *curves.chart("Reward checks", "%", checks, **bars)]


def learning(curves: Curves) -> list[Chart]:
    gradient = {"learner/grad_norm": "Before clipping"}
    gap = {
        "mismatch/logprob_gap_mean": "Mean",
        "mismatch/logprob_gap_p99": "99th percentile",
        "mismatch/logprob_gap_max": "Largest",
    }
    phases = {
        "seconds/rollout": "Rollout",
        "seconds/update": "Update",
        "seconds/weights": "Weights",
        "seconds/rest": "Rest",
    }
    return [
        *curves.chart("Entropy", "nats", {"learner/entropy": "Policy"}),
        *curves.chart("Gradient norm", "norm", gradient, may_use_log=True),
        *curves.chart("Log-probability gap, engine to learner", "nats", gap, may_use_log=True),
        *curves.chart("KL to the starting policy", "nats", {"learner/kl": "KL"}),
        *curves.chart("Clip fraction", "%", {"learner/clip_fraction": "Clipped tokens"}),
        *curves.chart("Seconds per phase", "seconds", phases, colors=(0, 2, 4, 5), stacked=True),
    ]


def other_metrics(curves: Curves) -> list[str]:
    """Names that no chart shows; call after `accuracy` and `all_charts`."""
    names = {
        name
        for row in curves.run.metrics
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return sorted(names - curves.used - NOT_METRICS)
