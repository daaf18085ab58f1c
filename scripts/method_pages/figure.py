"""A method's short curve as a small SVG, beside plain GRPO's; readable on light and dark pages."""

from __future__ import annotations

from html import escape

from mgrpo.report.chart_spec import Chart, Series
from mgrpo.report.plot import NARROW, axes, line_path, step_scale, value_scale
from scripts.method_pages.curves import Curve

HEIGHT, HEAD, MARGIN = 190, 34, 12  # in SVG units
STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #1b2027; }
.tick, .unit { font-size: 11px; fill: #5a6472; } .grid { stroke: #dfe1dd; }
.page { fill: #ffffff; } path { fill: none; stroke-linejoin: round; }
.own { stroke: #0072b2; stroke-width: 2.5; }
.plain { stroke: #6b7280; stroke-width: 1.5; stroke-dasharray: 5 4; }
@media (prefers-color-scheme: dark) {
text { fill: #e8eaed; } .tick, .unit { fill: #a2abb8; } .grid { stroke: #323841; }
.page { fill: #13161a; } .own { stroke: #56b4e9; } .plain { stroke: #a2abb8; } }
"""


def curve_figure(label: str, curve: Curve, plain: Curve | None) -> str:
    """Mean reward of first attempts by step.

    Args:
        plain: of GRPO with the same settings, drawn thin; None leaves it out.
    """
    lines = [("own", label, curve.reward)]
    if plain is not None:
        lines.append(("plain", "GRPO", plain.reward))
    steps = list(range(1, max(len(values) for _, _, values in lines) + 1))
    chart = Chart(
        title=label,
        steps=steps,
        series=[
            Series(label=name, values=padded(values, len(steps)), color=0)
            for _, name, values in lines
        ],
        step_names=[str(step) for step in steps],
        unit="%",
        full_share=True,
    )
    x, (y, ticks) = step_scale(chart, NARROW), value_scale(chart, HEIGHT)
    paths = "\n".join(
        f'<path class="{kind}" d="{line_path(steps, series.values, x, y)}"/>'
        for (kind, _, _), series in zip(lines, chart.series, strict=True)
    )
    keys = "".join(
        f'<path class="{kind}" d="M{MARGIN + 150 * place} 18h24"/>'
        f'<text x="{MARGIN + 150 * place + 30}" y="22">{escape(name)}</text>'
        for place, (kind, name, _) in enumerate(lines)
    )
    width, height = NARROW + 2 * MARGIN, HEIGHT + HEAD + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}: mean reward of first attempts over {len(steps)} steps">\n'
        f"<style>{STYLE}</style>\n"
        f'<rect class="page" width="{width}" height="{height}" rx="6"/>\n{keys}\n'
        f'<g transform="translate({MARGIN} {HEAD})">{axes(chart, x, y, ticks, NARROW, HEIGHT)}\n'
        f"{paths}</g>\n</svg>\n"
    )


def padded(values: list[float | None], length: int) -> list[float | None]:
    return [*values, *[None] * (length - len(values))]
