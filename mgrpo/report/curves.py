"""Which of a run's metrics share a chart, and under which words.

A metric that no chart names still shows, in the table of all other metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mgrpo.report.chart_spec import Chart, Marks, Series
from mgrpo.report.run_data import RunData
from mgrpo.report.scales import MAX_POINTS, Values, bucket_edges, bucket_means, smoothing_window

NOT_METRICS = {"step", "wall_s", "policy_version"}
MAX_DOMAINS = 6  # as many as there are colours; of more, the table of all metrics tells
Named = tuple[str, str]  # (metric, words for the legend)


class Curves:
    """A run's metrics by step, thinned where there are more steps than a chart can show."""

    def __init__(self, run: RunData) -> None:
        self.run = run
        self.edges = bucket_edges(len(run.metrics)) if run.metrics else [0]
        self.steps = [run.metrics[start]["step"] for start in self.edges[:-1]]
        lasts = [run.metrics[end - 1]["step"] for end in self.edges[1:]]
        self.step_names = [
            str(first) if first == last else f"{first} to {last}"
            for first, last in zip(self.steps, lasts, strict=True)
        ]
        self.used: set[str] = set()

    def column(self, name: str) -> Values:
        """The values of one metric, one per point of the charts."""
        return bucket_means([row.get(name) for row in self.run.metrics], self.edges)

    def series(
        self, named: Sequence[Named], *, colors: Sequence[int] = (0, 1, 2, 3, 4, 5)
    ) -> list[Series]:
        """A line for each metric that the run has; every second one is dashed."""
        lines = []
        for index, (name, label) in enumerate(named):
            values = self.column(name)
            if any(value is not None for value in values):
                self.used.add(name)
                color = colors[index % len(colors)]
                lines.append(Series(label=label, values=values, color=color, dashed=index % 2 == 1))
        return lines

    def per_layer(self, metric: str) -> list[Named]:
        """The same metric of every layer."""
        layers = range(1, self.run.num_layers + 1)
        return [(f"layer{layer}/{metric}", self.run.layer_label(layer)) for layer in layers]

    def chart(
        self,
        title: str,
        named: Sequence[Named],
        *,
        unit: str,
        colors: Sequence[int] = (0, 1, 2, 3, 4, 5),
        **options: Any,
    ) -> list[Chart]:
        """The chart, or nothing where the run has none of its metrics."""
        series = self.series(named, colors=colors)
        if not series:
            return []
        return [self.chart_of(title, series, unit=unit, **options)]

    def chart_of(self, title: str, series: Sequence[Series], **options: Any) -> Chart:
        return Chart(
            title=title, steps=self.steps, step_names=self.step_names, series=series, **options
        )


def curve_note(run: RunData) -> str:
    """How to read the lines, once for the whole section."""
    num_steps = len(run.metrics)
    parts = []
    if num_steps > MAX_POINTS:
        parts.append(f"Each point is the mean of about {num_steps / MAX_POINTS:.0f} steps.")
    window = smoothing_window(min(num_steps, MAX_POINTS))
    if window > 1:
        parts.append(f"Thick lines are running means over {window} points, thin lines the values.")
    parts.append("Point at a chart, or focus it and use the arrow keys, to read single steps.")
    return " ".join(parts)


def all_charts(curves: Curves) -> list[Chart]:
    """Every chart but the accuracy's, the most telling first."""
    if not curves.run.metrics:
        return []
    return [
        *transitions(curves),
        *sampling(curves),
        *learning(curves),
        *machinery(curves),
    ]


def accuracy(curves: Curves) -> list[Chart]:
    """The chart that stands beside the table of before and after."""
    if not curves.run.metrics:
        return []
    marks = list(heldout_marks(curves.run))
    note = "Diamonds: held-out problems. Lines: the completions sampled for training."
    return curves.chart(
        "Accuracy by step",
        curves.per_layer("accuracy"),
        unit="%",
        marks=marks,
        wide=True,
        note=note if marks else "Lines: the completions sampled for training.",
    )


def heldout_marks(run: RunData) -> Iterable[Marks]:
    """Held-out accuracy of each layer at each evaluation."""
    for layer in range(1, run.num_layers + 1):
        points = {
            evaluation["step"]: evaluation["acc"][layer - 1]
            for evaluation in run.evaluations
            if len(evaluation.get("acc", [])) >= layer and evaluation["acc"][layer - 1] is not None
        }
        if points:
            label = f"{run.layer_label(layer)}, held-out"
            yield Marks(label=label, points=sorted(points.items()), color=layer - 1)


def transitions(curves: Curves) -> list[Chart]:
    """For every layer from the second on, and in longer chains for the whole way, what
    corrections do; then the same by domain."""
    last = curves.run.num_layers
    places = [
        (f"transition/layer{layer}", f" · layer {layer}" if last > 2 else "")
        for layer in range(2, last + 1)
    ]
    if last > 2:
        places.append(("transition/all", f" · first attempt to layer {last}"))
    charts = [chart for place in places for chart in transitions_at(curves, *place)]
    return charts + domain_charts(curves)


def transitions_at(curves: Curves, prefix: str, suffix: str) -> list[Chart]:
    kept = (f"{prefix}/right_to_right", "Right → right")
    mended = (f"{prefix}/wrong_to_right", "Wrong → right")
    broken = (f"{prefix}/right_to_wrong", "Right → wrong")
    missed = (f"{prefix}/wrong_to_wrong", "Wrong → wrong")
    copied = (f"{prefix}/copy_fraction", "Copies the attempt")
    gained = (f"{prefix}/delta", "Gain")
    treatment = [
        (f"{prefix}/repaired_fraction", "Repairs a wrong attempt"),
        (f"{prefix}/confirmed_fraction", "Confirms a right attempt"),
        (f"{prefix}/copy_fraction_of_wrong", "Repeats a wrong answer"),
    ]
    return [
        *curves.chart(
            f"What corrections change{suffix}",
            [mended, broken, copied, gained],
            unit="%",
            colors=(0, 1, 3, 2),
        ),
        *curves.chart(
            f"Attempt and correction{suffix}",
            [kept, mended, broken, missed],
            unit="%",
            colors=(2, 0, 1, 5),
            stacked=True,
            full_share=True,
        ),
        *curves.chart(
            f"What becomes of an attempt{suffix}",
            treatment,
            unit="%",
            colors=(0, 2, 3),
            note="Shares of the corrections of wrong, of right and of wrong attempts.",
        ),
    ]


def domain_charts(curves: Curves) -> list[Chart]:
    """Accuracy and gain of each domain, where there are not more than a chart can tell apart."""
    domains = curves.run.domains
    if not 2 <= len(domains) <= MAX_DOMAINS:
        return []
    charts: list[Chart] = []
    for layer in range(1, curves.run.num_layers + 1):
        suffix = f" · layer {layer}" if curves.run.num_layers > 1 else ""
        accuracies = [(f"layer{layer}/domain/{domain}/accuracy", domain) for domain in domains]
        gains = [(f"transition/layer{layer}/domain/{domain}/delta", domain) for domain in domains]
        charts += curves.chart(f"Accuracy by domain{suffix}", accuracies, unit="%")
        charts += curves.chart(f"Gain of corrections by domain{suffix}", gains, unit="%")
    return charts


def sampling(curves: Curves) -> list[Chart]:
    statuses = [
        ("rewards/scored", "Scored"),
        ("rewards/unparsable", "Unparsable"),
        ("rewards/timeout", "Check timed out"),
        ("rewards/error", "Check failed"),
    ]
    selected = curves.per_layer("selected_fraction")
    silent = curves.per_layer("zero_variance_fraction")
    return [
        *curves.chart("Mean reward", curves.per_layer("reward_mean"), unit="reward"),
        *curves.chart(
            "Completion length", curves.per_layer("completion_tokens_mean"), unit="tokens"
        ),
        *curves.chart("Cut off at the limit", curves.per_layer("truncated_fraction"), unit="%"),
        *curves.chart("Completions that train", selected, unit="%"),
        *curves.chart("Groups whose rewards are all equal", silent, unit="%"),
        *curves.chart(
            "Reward checks",
            statuses,
            unit="%",
            colors=(0, 5, 4, 1),
            stacked=True,
            full_share=True,
        ),
    ]


def learning(curves: Curves) -> list[Chart]:
    gap = [
        ("mismatch/logprob_gap_mean", "Mean"),
        ("mismatch/logprob_gap_p99", "99th percentile"),
        ("mismatch/logprob_gap_max", "Largest"),
    ]
    policy = [("learner/clip_fraction", "Clipped tokens")]
    return [
        *curves.chart("Entropy", [("learner/entropy", "Policy")], unit="nats"),
        *curves.chart(
            "Gradient norm",
            [("learner/grad_norm", "Before clipping")],
            unit="norm",
            may_use_log=True,
        ),
        *curves.chart("Log-probability gap, engine to learner", gap, unit="nats", may_use_log=True),
        *curves.chart("KL to the starting policy", [("learner/kl", "KL")], unit="nats"),
        *curves.chart("Clip fraction", policy, unit="%"),
    ]


def machinery(curves: Curves) -> list[Chart]:
    phases = [
        ("seconds/rollout", "Rollout"),
        ("seconds/update", "Update"),
        ("seconds/weights", "Weights"),
    ]
    series = curves.series(phases, colors=(0, 2, 4))
    total = curves.column("seconds/step")
    rest = [rest_of(step, index, series) for index, step in enumerate(total)]
    if any(value is not None and value > 0 for value in rest):
        curves.used.add("seconds/step")
        series.append(Series(label="Rest", values=rest, color=5))
    if not series:
        return []
    return [curves.chart_of("Seconds per phase", series, unit="seconds", stacked=True)]


def rest_of(step_s: float | None, index: int, phases: Sequence[Series]) -> float | None:
    """What of a step's seconds no phase accounts for. Phases that overlap leave nothing."""
    if step_s is None:
        return None
    return max(0.0, step_s - sum(phase.values[index] or 0.0 for phase in phases))


def other_metrics(curves: Curves) -> list[str]:
    """Names that no chart shows; call after `accuracy` and `all_charts`."""
    names = {
        name
        for row in curves.run.metrics
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return sorted(names - curves.used - NOT_METRICS)
