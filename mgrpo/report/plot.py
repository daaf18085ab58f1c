"""The inside of a chart: scales, axes, lines, bars and marks as SVG elements."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mgrpo.report.chart_spec import Chart, Marks
from mgrpo.report.scales import (
    Scale,
    Values,
    linear_ticks,
    log_ticks,
    running_mean,
    smoothing_window,
    step_ticks,
    wants_log,
)
from mgrpo.report.words import number

NARROW, WIDE = 380, 600  # widths in SVG units; on screen one unit is about one pixel
HEIGHTS = {NARROW: 210, WIDE: 330}
DOT = "m-2 0a2 2 0 1 0 4 0a2 2 0 1 0 -4 0"  # a circle around the current point
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 20, 34


def step_scale(chart: Chart, width: int) -> Scale:
    """Stacked bars keep half a bar's width free on both sides."""
    first, last = chart.first_step, chart.last_step
    left, right = float(LEFT), float(width - RIGHT)
    if chart.stacked or first == last:
        half_bar = (right - left) / len(chart.steps) / 2
        left, right = left + half_bar, right - half_bar
    return Scale(first, max(last, first + 1), left, right if last > first else left + 1)


def value_scale(chart: Chart, height: int) -> tuple[Scale, list[float]]:
    """The vertical scale and its ticks."""
    bottom, top = float(height - BOTTOM), float(TOP)
    if chart.full_share:
        return Scale(0.0, 1.0, bottom, top), [0.0, 0.25, 0.5, 0.75, 1.0]
    values = chart.heights
    if not values:
        return Scale(0.0, 1.0, bottom, top), [0.0, 1.0]
    if chart.may_use_log and wants_log(values):
        ticks = log_ticks(min(values), max(values))
        return Scale(ticks[0], ticks[-1], bottom, top, log=True), ticks
    low, high = min(values), max(values)
    if low > 0 and low < 0.6 * high:
        low = 0.0  # start at 0 unless that would flatten the curve
    if low == high:
        low, high = (0.0, high) if high > 0 else (low, low + 1.0)
    ticks = linear_ticks(low, high, 5)
    return Scale(ticks[0], ticks[-1], bottom, top), ticks


def axes(chart: Chart, x: Scale, y: Scale, ticks: Sequence[float], width: int, height: int) -> str:
    parts = []
    for tick in ticks:
        place = y(tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{place:.1f}" '
            f'y2="{place:.1f}"/><text class="tick" x="{LEFT - 6}" y="{place + 3.5:.1f}" '
            f'text-anchor="end">{escape(tick_text(chart, tick))}</text>'
        )
    for step in step_ticks(chart.first_step, chart.last_step, 6 if width == NARROW else 9):
        parts.append(
            f'<text class="tick" x="{x(step):.1f}" y="{height - BOTTOM + 15}" '
            f'text-anchor="middle">{step}</text>'
        )
    scale = ", logarithmic" if y.log else ""
    unit = {"%": "share, %"}.get(chart.unit, chart.unit)
    parts.append(f'<text class="unit" x="2" y="10">{escape(unit + scale)}</text>')
    parts.append(
        f'<text class="unit" x="{width - RIGHT}" y="{height - 4}" text-anchor="end">step</text>'
    )
    return "".join(parts)


def tick_text(chart: Chart, tick: float) -> str:
    if chart.unit == "%":
        return f"{100 * tick:g}"
    return number(tick) if abs(tick) < 10_000 else f"{tick / 1000:g}k"


def lines(chart: Chart, x: Scale, y: Scale) -> str:
    """Each series as it is, thin, under its running mean where the run is long enough."""
    window = smoothing_window(len(chart.steps))
    parts = []
    for series in chart.series:
        num_known = sum(value is not None for value in series.values)
        dashed = " dashed" if series.dashed and num_known > 1 else ""
        if window > 1:
            raw = line_path(chart.steps, series.values, x, y)
            parts.append(f'<path class="raw s{series.color}" d="{raw}"/>')
        path = line_path(chart.steps, running_mean(series.values, window), x, y)
        parts.append(f'<path class="line{dashed} s{series.color}" d="{path}"/>')
    return "".join(parts)


def line_path(steps: Sequence[int], values: Values, x: Scale, y: Scale) -> str:
    """Missing values interrupt the line; a value alone between gaps becomes a dot."""
    commands: list[str] = []
    previous_missing = True
    for index, (step, value) in enumerate(zip(steps, values, strict=True)):
        if value is not None:
            place = f"{x(step):.1f} {y(value):.1f}"
            commands.append(f"M{place}" if previous_missing else f"L{place}")
            next_missing = index + 1 == len(values) or values[index + 1] is None
            if previous_missing and next_missing:
                commands.append(DOT)
        previous_missing = value is None
    return "".join(commands)


def bars(chart: Chart, x: Scale, y: Scale) -> str:
    """Stacked bars, the first series at the bottom; one path per series."""
    num_bars = len(chart.steps)
    width = (x.end - x.start) / max(num_bars - 1, 1) if num_bars > 1 else 60.0
    gap = 1.0 if width > 8 else 0.0
    base = [0.0] * num_bars
    parts = []
    for series in chart.series:
        commands = []
        for index, value in enumerate(series.values):
            if not value:
                continue
            bottom, top = y(base[index]), y(base[index] + value)
            left = x(chart.steps[index]) - width / 2 + gap / 2
            commands.append(
                f"M{left:.1f} {bottom:.1f}h{width - gap:.1f}V{top:.1f}h{gap - width:.1f}z"
            )
            base[index] += value
        parts.append(f'<path class="bar s{series.color}" d="{"".join(commands)}"/>')
    return "".join(parts)


def marks_of(chart: Chart, marks: Marks, x: Scale, y: Scale) -> str:
    places = [(x(step), y(value)) for step, value in marks.points]
    path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in places)
    diamonds = "".join(
        f'<path class="diamond s{marks.color}" d="M{px:.1f} {py - 5:.1f}l5 5l-5 5l-5 -5z">'
        f"<title>{escape(marks.label)}, step {step}: {chart.write(value)}</title></path>"
        for (px, py), (step, value) in zip(places, marks.points, strict=True)
    )
    return f'<path class="link s{marks.color}" d="{path}"/>{diamonds}'
