"""A simulated run as a timeline: text for the terminal, SVG for a browser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from mgrpo.simulation.outcome import Outcome, PoolOutcome, Span, covered

SHADES = " ░▒▓█"
LETTERS = {"weights": "w", "switch": "s", "checkpoint": "c", "evaluation": "e", "lost": "x"}
SHOWN_STEPS = 3
COLOURS = {
    "update": "#4269d0",
    "weights": "#ff725c",
    "switch": "#efb118",
    "checkpoint": "#9498a0",
    "evaluation": "#a463f2",
    "lost": "#d62728",
}
WIDTH, ROW, LEFT, TOP = 1000, 54, 110, 46


def text_timeline(outcome: Outcome, *, width: int = 72) -> Iterator[str]:
    """The last steady steps, a row for each pool, the learner and the waits.

    The darker a column, the larger the share of its time in which the part is busy.
    """
    start, end = shown_window(outcome)
    edges = np.linspace(start, end, width + 1)
    rows = {pool.name: shaded(shares) for pool, shares in pool_shares(outcome, edges)}
    rows["learner"] = shaded(span_shares(outcome, ("update",), edges))
    rows["waits"] = "".join(wait_letters(outcome, edges))
    marks = [" "] * width
    for time in outcome.ends_s:
        if start < time <= end:
            marks[min(width - 1, int(width * (time - start) / (end - start)))] = "|"
    wide = max(map(len, rows)) + 2
    for name, row in rows.items():
        yield f"{name:<{wide}}{row}".rstrip()
    yield f"{'step ends':<{wide}}"[:wide] + "".join(marks).rstrip()
    yield f"{'':<{wide}}0 s{f'{end - start:,.0f} s':>{width - 3}}"
    used = [kind for kind in LETTERS if LETTERS[kind] in rows["waits"]]
    if used:
        yield f"{'':<{wide}}" + ", ".join(f"{LETTERS[kind]}: {kind}" for kind in used)


def shown_window(outcome: Outcome) -> tuple[float, float]:
    """The last steady steps, in seconds of the run."""
    last = outcome.steady[-1]
    first = max(outcome.steady[0], last - SHOWN_STEPS + 1)
    return (outcome.ends_s[first - 1] if first else 0.0), outcome.ends_s[last]


def pool_shares(
    outcome: Outcome, edges: NDArray[np.float64]
) -> Iterator[tuple[PoolOutcome, NDArray[np.float64]]]:
    """Each pool with [columns] busy shares."""
    for pool in outcome.pools:
        yield pool, pool.course.means(edges, pool.course.busy) / pool.num_engines


def span_shares(
    outcome: Outcome, kinds: Sequence[str], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[columns] shares of time that spans of some kinds take."""
    fine = np.linspace(edges[0], edges[-1], 8 * (len(edges) - 1) + 1)
    spans = [span for span in outcome.spans if span.kind in kinds]
    inside = covered((fine[1:] + fine[:-1]) / 2, spans)
    return inside.reshape(-1, 8).mean(axis=1)


def shaded(shares: NDArray[np.float64]) -> str:
    levels = np.clip(np.ceil(shares * (len(SHADES) - 1) - 1e-9), 0, len(SHADES) - 1).astype(int)
    return "".join(SHADES[level] for level in levels)


def wait_letters(outcome: Outcome, edges: NDArray[np.float64]) -> Iterator[str]:
    """For each column the wait that begins or goes on in it."""
    waits = [span for span in outcome.spans if span.kind in LETTERS and span.end_s > span.start_s]
    for left, right in pairwise(edges):
        shares = [(min(span.end_s, right) - max(span.start_s, left), span.kind) for span in waits]
        seconds, kind = max(shares, default=(0.0, ""))
        yield LETTERS[kind] if seconds > 0 else " "


def svg_timeline(outcome: Outcome, title: str) -> str:
    """The same steps as an SVG image: a pool's row is as full as its engines are busy, the line in
    it is the share of their batches that is filled."""
    start, end = shown_window(outcome)
    scale = WIDTH / (end - start)
    edges = np.linspace(start, end, WIDTH // 2 + 1)
    height = TOP + ROW * (len(outcome.pools) + 2) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + LEFT + 20} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH + LEFT + 20}" height="{height}" fill="white"/>',
        f'<text x="10" y="20" font-weight="bold">{escape(title)}</text>',
    ]
    y = float(TOP)
    for pool, busy in pool_shares(outcome, edges):
        full = pool.course.means(edges, pool.course.running) / (pool.num_engines * pool.max_running)
        parts += [label(pool.name, outcome.pool_busy(pool), y), area(busy, y), line(full, y)]
        y += ROW
    parts.append(label("learner", outcome.learner_busy, y))
    parts += [box(span, start, end, scale, y) for span in outcome.spans if span.kind == "update"]
    y += ROW
    parts.append(label("waits", None, y))
    parts += [box(span, start, end, scale, y) for span in outcome.spans if span.kind != "update"]
    y += ROW
    for time in (t for t in outcome.ends_s if start <= t <= end):
        x = LEFT + (time - start) * scale
        parts.append(f'<path d="M{x:.1f} {TOP}V{y:.1f}" stroke="#888" stroke-dasharray="3 3"/>')
        parts.append(f'<text x="{x - 46:.1f}" y="{y + 16:.1f}">{time - start:,.0f} s</text>')
    used = {span.kind for span in outcome.spans if start < span.end_s and span.start_s < end}
    x = 10.0 + 8 * len(title)
    for kind in [kind for kind in COLOURS if kind in used]:
        parts.append(f'<rect x="{x}" y="10" width="11" height="11" fill="{COLOURS[kind]}"/>')
        parts.append(f'<text x="{x + 15}" y="20">{kind}</text>')
        x += 24 + 8 * len(kind)
    return "\n".join([*parts, "</svg>", ""])


def label(name: str, share: float | None, y: float) -> str:
    percent = "" if share is None else f" {100 * share:.0f} %"
    return f'<text x="10" y="{y + ROW / 2:.1f}">{escape(name)}{percent}</text>'


def area(shares: NDArray[np.float64], y: float) -> str:
    bottom, most = y + ROW - 8, ROW - 12
    points = " ".join(
        f"{LEFT + 2 * n} {bottom - most * share:.1f} {LEFT + 2 * n + 2} {bottom - most * share:.1f}"
        for n, share in enumerate(shares)
    )
    right = LEFT + 2 * len(shares)
    return f'<polygon points="{LEFT} {bottom} {points} {right} {bottom}" fill="#6cc5b0"/>'


def line(shares: NDArray[np.float64], y: float) -> str:
    bottom, most = y + ROW - 8, ROW - 12
    points = " ".join(
        f"{LEFT + 2 * n + 1} {bottom - most * min(1.0, share):.1f}"
        for n, share in enumerate(shares)
    )
    return f'<polyline points="{points}" fill="none" stroke="#1b5e50" stroke-width="1.2"/>'


def box(span: Span, start: float, end: float, scale: float, y: float) -> str:
    left, right = max(span.start_s, start), min(span.end_s, end)
    if right <= left:
        return ""
    return (
        f'<rect x="{LEFT + (left - start) * scale:.1f}" y="{y + 4:.1f}" '
        f'width="{max(0.8, (right - left) * scale):.1f}" height="{ROW - 12}" '
        f'fill="{COLOURS[span.kind]}"><title>{span.kind} of step {span.step}: '
        f"{span.end_s - span.start_s:.1f} s</title></rect>"
    )
