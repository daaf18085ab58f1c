"""Held-out accuracy over training as one SVG, readable on light and on dark pages.

A thin line is a seed, a thick one the mean over seeds. Methods differ by colour and by dash. The
drawing has a background of its own, so it can be shown as an image anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.study.page import by_method
from benchmarks.study.results import Result
from scripts.method_pages.figure import LOOK, line, share_axes, svg_of

NUM_COLORS = 6
DASHES = ("solid", (0, (5, 3)), (0, (1, 2)), (0, (6, 2, 1, 2)))
TITLES = ("First attempt (Acc@t1')", "Second turn (Acc@t2), in each method's own layer 2")

Curve = dict[int, float]  # step -> held-out accuracy


@rc_context(LOOK)
def curves_figure(results: Sequence[Result]) -> str:
    """The whole drawing."""
    groups = list(by_method(results).values())
    figure = Figure(figsize=(8.6, 3.6))
    panels = figure.subplots(1, len(TITLES), sharey=True)
    for turn, (axes, title) in enumerate(zip(panels, TITLES, strict=True)):
        axes.set_title(title)
        for number, group in enumerate(groups):
            draw(axes, turn, number, group)
    for axes in panels:
        share_axes(axes)
        axes.label_outer()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return svg_of(figure, summary(groups))


def draw(axes: Axes, turn: int, number: int, group: Sequence[Result]) -> None:
    """One turn of a method, if it evaluates that during training."""
    curves = [one for one in (curve(result, turn) for result in group) if one]
    color, dash = f"c{number % NUM_COLORS}", DASHES[number % len(DASHES)]
    for one in curves if len(curves) > 1 else ():
        line(axes, list(one), list(one.values()), color=color, width=0.8, dash=dash, alpha=0.45)
    if mean := mean_curve(curves):
        steps, shares = list(mean), list(mean.values())
        label = group[0].method
        line(axes, steps, shares, color=color, width=1.9, dash=dash, label=label)


def curve(result: Result, turn: int) -> Curve:
    """Accuracy of one turn at each evaluation; empty where the run has no such turn."""
    return {row["step"]: row["acc"][turn] for row in result.evaluations if len(row["acc"]) > turn}


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over seeds at every step that all of them have."""
    shared = set.intersection(*(set(curve) for curve in curves)) if curves else set()
    return {step: fmean(curve[step] for curve in curves) for step in sorted(shared)}


def summary(groups: Sequence[Sequence[Result]]) -> str:
    """The drawing in a sentence, for screen readers."""
    parts = []
    for group in groups:
        shares = list(mean_curve([curve(result, 0) for result in group]).values())
        if shares:
            first, last = shares[0], shares[-1]
            parts.append(f"{group[0].method} from {100 * first:.1f} % to {100 * last:.1f} %")
    return (
        f"Held-out accuracy of first attempts over training: {'; '.join(parts) or 'no runs yet'}."
    )
