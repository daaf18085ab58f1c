"""The page and the figure of the autoscaling run, from its record."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from benchmarks.measured_page import write_measured

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
PAGE, FIGURE = RESULTS / "cluster.md", RESULTS / "autoscaling.svg"
WIDTH, LEFT, RIGHT, ROW, TOP = 900, 150, 14, 22, 66
COLOURS = {
    "node": "#7c8a99",
    "starting": "#f2c14e",
    "restarting": "#f2c14e",
    "stale": "#b9a7d9",
    "healthy": "#3f9c6b",
    "suspect": "#e08e45",
    "dead": "#c0392b",
}
LEGEND = {
    "node": "node",
    "starting": "waits for a place, loads",
    "stale": "waits for weights",
    "healthy": "at work",
    "dead": "lost",
}


def engine_spans(record: dict[str, Any]) -> dict[str, list[tuple[float, float, str]]]:
    """(from, to, state) of every engine, in seconds since the run's beginning.

    A state lasts until the next one is written; "gone" has no span.
    """
    spans: dict[str, list[tuple[float, float, str]]] = {}
    open_since: dict[str, tuple[float, str]] = {}
    for row in record["engines"]:
        at = row["time"] - record["began"]
        if row["engine"] in open_since:
            since, state = open_since.pop(row["engine"])
            spans.setdefault(row["engine"], []).append((since, at, state))
        if row["to"] != "gone":
            open_since[row["engine"]] = (at, row["to"])
    end = record["ended"] - record["began"]
    for engine, (since, state) in open_since.items():
        spans.setdefault(engine, []).append((since, max(end, since), state))
    return spans


def figure(record: dict[str, Any]) -> str:
    """Nodes and engines as bars over time, and where steps begin."""
    engines = engine_spans(record)
    last = max(node["to"] for node in record["nodes"]) - record["began"]
    rows: list[tuple[str, list[tuple[float, float, str]]]] = [
        (
            f"node {node['node']}",
            [(max(0.0, node["from"] - record["began"]), node["to"] - record["began"], "node")],
        )
        for node in record["nodes"]
    ]
    rows += list(engines.items())
    height = TOP + ROW * len(rows) + 52

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / max(last, 1.0)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="system-ui, sans-serif" font-size="12" role="img" '
        f'aria-label="Nodes and engines over time">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    place = float(LEFT)
    for state, words in LEGEND.items():
        parts.append(
            f'<rect x="{place:.0f}" y="10" width="12" height="12" fill="{COLOURS[state]}"/>'
        )
        parts.append(f'<text x="{place + 17:.0f}" y="20" fill="#333">{escape(words)}</text>')
        place += 32 + 6.6 * len(words)
    bottom = TOP + ROW * len(rows)
    for index, (name, spans) in enumerate(rows):
        y = TOP + ROW * index
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end" fill="#333">{escape(name)}</text>'
        )
        for begin, end, state in spans:
            width = max(x(end) - x(begin), 1.0)
            parts.append(
                f'<rect x="{x(begin):.1f}" y="{y + 3}" width="{width:.1f}" height="{ROW - 7}" '
                f'fill="{COLOURS[state]}"><title>{escape(name)}: {state}, {begin:.0f} to '
                f"{end:.0f} s</title></rect>"
            )
    marks = [(record["lost"]["time"] - record["began"], "node lost")]
    calm = next((r for r in record["metrics"] if r["step"] == record["calm_from"]), None)
    if calm is not None:
        marks.append(
            (
                record["metrics_began"] + calm["wall_s"] - calm["seconds/step"],
                "layer 1 samples less",
            )
        )
    marks.append((record["ended"] - record["began"], "run ends"))
    for place_above, (at, words) in enumerate(marks):
        label_y = TOP - 8 - 13 * (place_above % 2)  # neighbours do not write over each other
        parts.append(
            f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{label_y + 3}" y2="{bottom}" '
            f'stroke="#222" stroke-dasharray="3 3"/><text x="{x(at):.1f}" y="{label_y}" '
            f'text-anchor="middle" fill="#222">{escape(words)}</text>'
        )
    for row in record["metrics"]:
        at = record["metrics_began"] + row["wall_s"]
        parts.append(
            f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{bottom + 2}" y2="{bottom + 8}" '
            f'stroke="#555"/>'
        )
    parts.append(
        f'<text x="{LEFT - 8}" y="{bottom + 11}" text-anchor="end" fill="#333">steps</text>'
    )
    step_s = 60 if last <= 900 else 120
    for tick in range(0, int(last) + 1, step_s):
        parts.append(
            f'<text x="{x(tick):.1f}" y="{bottom + 28}" text-anchor="middle" '
            f'fill="#555">{tick}</text>'
        )
    parts.append(
        f'<text x="{WIDTH / 2}" y="{bottom + 46}" text-anchor="middle" fill="#555">seconds</text>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def measured(record: dict[str, Any]) -> str:
    """The page's measured part."""
    engines = engine_spans(record)
    rows = record["metrics"]
    machine = record["machine"]
    waits = [
        (name, end - begin)
        for name, spans in engines.items()
        for begin, end, state in spans
        if state in ("starting", "restarting")
    ]
    totals = {
        key: int(sum(row.get(key) or 0 for row in rows))
        for key in (
            "engines/deaths",
            "engines/restarts",
            "engines/requests_resent",
            "engines/broadcasts_in_step",
            "engines/failed_broadcasts",
        )
    }
    lines = [
        "![Nodes and engines over time](autoscaling.svg)",
        "",
        f"{len(rows)} of {record['steps']} steps in {record['ended'] - record['began']:.0f} s "
        f"(cluster start excluded, engines' start included); {len(record['nodes']) - 1} nodes "
        f"came and went beside the head. Node {record['lost']['node']}, with layer 1's first "
        f"engine, was ended after step {record['lost']['step']}.",
        "",
        "| What | Number |",
        "| --- | ---: |",
        *(f"| `{key}`, all steps | {value} |" for key, value in totals.items()),
        f"| steps with two layer-1 engines at work | "
        f"{sum(row.get('engines/layer1_working') == 2 for row in rows)} |",
        f"| largest `weights/probe_gap_max`, nats | "
        f"{max(row.get('weights/probe_gap_max') or 0 for row in rows):.2g} |",
        "",
        "| Engine | From asked for to loaded, s |",
        "| --- | ---: |",
        *(f"| {name} | {seconds:.0f} |" for name, seconds in waits),
        "",
        f"Measured on {machine['cpu']}, {machine['cores']} cores, shared with other programs; "
        f"commit {machine['commit']}. Command: `python -m benchmarks.autoscaling --write`; the "
        "record is `autoscaling.json`.",
    ]
    return "\n".join(lines)


def write_page(record: dict[str, Any]) -> None:
    FIGURE.write_text(figure(record), encoding="utf-8")
    write_measured(PAGE, measured(record), title="On a cluster")
