"""Held-out accuracy over training as one SVG, readable on light and on dark pages.

A thin line is a seed, a thick one the mean over seeds. Methods differ by colour and by dash. The
drawing has a background of its own, so it can be shown as an image anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean

from benchmarks.study.page import by_method
from benchmarks.study.results import Result
from mgrpo.report.chart_spec import Chart, Series
from mgrpo.report.plot import NARROW, axes, line_path, step_scale, value_scale

HEIGHT = 250  # of one panel, in SVG units
HEAD = 46  # the panels' titles and the room around them
GAP = 24  # between the panels and around the drawing
LEGEND_COLUMNS, LEGEND_WIDTH, LEGEND_ROW = 4, 195, 20
DASHES = ("none", "7 4", "2 3", "9 3 2 3")
TITLES = ("First attempt (Acc@t1')", "Second turn (Acc@t2), in each method's own layer 2")


@dataclass(frozen=True)
class Palette:
    """Colours for one background; the report's."""

    page: str
    ink: str
    soft: str
    grid: str
    lines: tuple[str, ...]


LIGHT = Palette(
    page="#ffffff",
    ink="#1b2027",
    soft="#5a6472",
    grid="#dfe1dd",
    lines=("#0072b2", "#c94f00", "#00805d", "#b0508a", "#b07a00", "#6b7280"),
)
DARK = Palette(
    page="#13161a",
    ink="#e8eaed",
    soft="#a2abb8",
    grid="#323841",
    lines=("#56b4e9", "#ff8f57", "#45c9a1", "#e39bc6", "#edbd4b", "#a2abb8"),
)
NUM_COLORS = len(LIGHT.lines)
SHAPES = """
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
text.title { font-weight: 600; } text.tick, text.unit { font-size: 11px; }
path { fill: none; stroke-linejoin: round; }
path.seed { stroke-width: 1; opacity: 0.45; } path.mean { stroke-width: 2.5; }
"""

Curve = dict[int, float]  # step -> held-out accuracy


def curves_figure(results: Sequence[Result]) -> str:
    """The whole drawing."""
    groups = by_method(results)
    head = HEAD + LEGEND_ROW * math.ceil(len(groups) / LEGEND_COLUMNS)
    width, height = 2 * NARROW + 3 * GAP, head + HEIGHT + GAP
    panels = "".join(
        f'<g transform="translate({GAP + turn * (NARROW + GAP)} {head})">'
        f'<text class="title" x="0" y="-10">{escape(title)}</text>'
        f"{panel(title, turn, list(groups.values()))}</g>"
        for turn, title in enumerate(TITLES)
    )
    methods = [group[0].method for group in groups.values()]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(summary(list(groups.values())))}">\n'
        f"<style>{SHAPES}{paint(LIGHT)}\n"
        f"@media (prefers-color-scheme: dark) {{ {paint(DARK)} }}</style>\n"
        f'<rect class="page" width="{width}" height="{height}" rx="6"/>\n'
        f"{legend(methods)}\n{panels}\n</svg>\n"
    )


def paint(palette: Palette) -> str:
    """Style rules for one background."""
    lines = (f".s{number} {{ stroke: {color}; }}" for number, color in enumerate(palette.lines))
    return (
        f".page {{ fill: {palette.page}; }} text {{ fill: {palette.ink}; }} "
        f".tick, .unit {{ fill: {palette.soft}; }} .grid {{ stroke: {palette.grid}; }} "
        f"{' '.join(lines)}"
    )


def panel(title: str, turn: int, groups: Sequence[Sequence[Result]]) -> str:
    """One turn of every method that evaluates it during training."""
    curves = [[one for one in (curve(result, turn) for result in group) if one] for group in groups]
    steps = sorted({step for group in curves for one in group for step in one})
    if not steps:
        return ""
    lines = [
        Series(label="", values=[one.get(step) for step in steps], color=0)
        for group in curves
        for one in group
    ]
    names = [str(step) for step in steps]
    chart = Chart(title=title, steps=steps, series=lines, step_names=names, unit="%")
    x = step_scale(chart, NARROW)
    y, ticks = value_scale(chart, HEIGHT)
    parts = [axes(chart, x, y, ticks, NARROW, HEIGHT)]
    for number, group in enumerate(curves):
        for one in group if len(group) > 1 else ():
            path = line_path(list(one), list(one.values()), x, y)
            parts.append(f'<path class="seed {look(number)} d="{path}"/>')
        if not (mean := mean_curve(group)):
            continue
        path = line_path(list(mean), list(mean.values()), x, y)
        parts.append(f'<path class="mean {look(number)} d="{path}"/>')
    return "\n".join(parts)


def curve(result: Result, turn: int) -> Curve:
    """Accuracy of one turn at each evaluation; empty where the run has no such turn."""
    return {row["step"]: row["acc"][turn] for row in result.evaluations if len(row["acc"]) > turn}


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over seeds at every step that all of them have."""
    shared = set.intersection(*(set(one) for one in curves)) if curves else set()
    return {step: fmean(one[step] for one in curves) for step in sorted(shared)}


def look(number: int) -> str:
    """Colour class and dash of a method; closes the class attribute."""
    return f's{number % NUM_COLORS}" stroke-dasharray="{DASHES[number % len(DASHES)]}"'


def legend(methods: Sequence[str]) -> str:
    return "".join(
        f'<g transform="translate({GAP + number % LEGEND_COLUMNS * LEGEND_WIDTH} '
        f'{20 + number // LEGEND_COLUMNS * LEGEND_ROW})">'
        f'<path class="mean {look(number)} d="M0 0h28"/>'
        f'<text x="36" y="4.5">{escape(method)}</text></g>'
        for number, method in enumerate(methods)
    )


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
