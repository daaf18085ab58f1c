"""Line charts and stacked bars as SVG text, without a plotting library.

Every chart is a `<figure>` whose legend doubles as a read-out: it shows the last values, and
script.js replaces them by those of the step under the pointer or the arrow keys. Colours are
CSS classes (`s0` to `s5`), so that style.css picks them for a light or a dark page. Lines
also differ by dash, bars by order, so that nothing rests on colour alone.
"""

from __future__ import annotations

import json
from html import escape

from mgrpo.report.chart_spec import Chart
from mgrpo.report.plot import (
    BOTTOM,
    HEIGHTS,
    NARROW,
    TOP,
    WIDE,
    axes,
    bars,
    line_path,
    lines,
    marks_of,
    step_scale,
    value_scale,
)
from mgrpo.report.scales import Scale, Values


def figure(chart: Chart) -> str:
    """The chart with title, legend and note, as HTML."""
    sizes = [NARROW, WIDE] if chart.wide else [NARROW]
    drawings = "".join(drawing(chart, width) for width in sizes)
    note = f'<p class="note">{escape(chart.note)}</p>' if chart.note else ""
    wide = " wide" if chart.wide else ""
    return (
        f'<figure class="chart{wide}" data-chart="{escape(read_out(chart))}">'
        f"<figcaption>{escape(chart.title)}</figcaption>"
        f"{legend(chart)}{drawings}{note}</figure>"
    )


def read_out(chart: Chart) -> str:
    """The values as JSON for script.js, already written as people read them."""
    values = [[chart.write(value) for value in series.values] for series in chart.series]
    return json.dumps(
        {"steps": list(chart.steps), "names": list(chart.step_names), "values": values},
        ensure_ascii=False,
    )


def legend(chart: Chart) -> str:
    last = escape(chart.step_names[-1])
    entries = [f'<li class="at">step <b class="step">{last}</b></li>']
    for series in chart.series:
        key = "bar" if chart.stacked else "dash" if series.dashed else "line"
        entries.append(
            f'<li><span class="key {key} s{series.color}" aria-hidden="true"></span>'
            f'{escape(series.label)} <b class="value">{chart.write(series.values[-1])}</b></li>'
        )
    for marks in chart.marks:
        entries.append(
            f'<li><span class="key mark s{marks.color}" aria-hidden="true"></span>'
            f"{escape(marks.label)} <b>{chart.write(marks.points[-1][1])}</b></li>"
        )
    return f'<ul class="legend" aria-live="off">{"".join(entries)}</ul>'


def drawing(chart: Chart, width: int) -> str:
    """One `<svg>` of the given width."""
    height = HEIGHTS[width]
    x = step_scale(chart, width)
    y, ticks = value_scale(chart, height)
    body = bars(chart, x, y) if chart.stacked else lines(chart, x, y)
    marks = "".join(marks_of(chart, marks, x, y) for marks in chart.marks)
    return (
        f'<svg class="w{width}" viewBox="0 0 {width} {height}" role="img" tabindex="0" '
        f'aria-label="{escape(summary(chart))}" data-left="{x(chart.first_step):.1f}" '
        f'data-right="{x(chart.last_step):.1f}" data-first="{chart.first_step}" '
        f'data-last="{chart.last_step}">'
        f"{axes(chart, x, y, ticks, width, height)}{body}{marks}"
        f'<line class="cursor" y1="{TOP}" y2="{height - BOTTOM}" x1="-9" x2="-9"/></svg>'
    )


def summary(chart: Chart) -> str:
    """The chart in a sentence, for screen readers."""
    parts = []
    for series in chart.series:
        known = [value for value in series.values if value is not None]
        if known:
            unit = "" if chart.unit in ("", "%") else f" {chart.unit}"
            parts.append(
                f"{series.label} from {chart.write(known[0])} to {chart.write(known[-1])}{unit}"
            )
    steps = f"steps {chart.steps[0]} to {chart.steps[-1]}"
    return f"{chart.title}, {steps}: {'; '.join(parts)}. Arrow keys read single steps."


def sparkline(values: Values) -> str:
    """A line of one series, the size of a word."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    x = Scale(0, max(len(values) - 1, 1), 1.0, 99.0)
    y = Scale(low, high if high > low else low + (abs(low) or 1.0), 22.0, 2.0)
    path = line_path(range(len(values)), values, x, y)
    return (
        '<svg class="spark" viewBox="0 0 100 24" aria-hidden="true">'
        f'<path class="line s0" d="{path}"/></svg>'
    )
