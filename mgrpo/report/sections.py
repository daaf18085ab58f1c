"""The page's sections as HTML. Every value from a run is escaped where it is put in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from mgrpo.report.chart_spec import Chart
from mgrpo.report.charts import figure, sparkline
from mgrpo.report.curves import Curves, other_metrics
from mgrpo.report.outcome import (
    OutcomeRow,
    first_and_last,
    footnote,
    outcome_rows,
    outcome_sentence,
    training_sentence,
)
from mgrpo.report.run_data import RunData
from mgrpo.report.sample import Sample, script_json
from mgrpo.report.words import duration, number, plural


def header_section(run: RunData) -> str:
    facts = "".join(
        f"<div><dt>{escape(term)}</dt><dd>{escape(value)}</dd></div>"
        for term, value in facts_of(run)
    )
    description = str(run.config.get("description") or "")
    lead = f'<p class="lead">{escape(description)}</p>' if description else ""
    return (
        f'<header><p class="eyebrow">mgrpo · report of a run</p><h1>{escape(run.name)}</h1>{lead}'
        f'<p class="outcome">{escape(outcome_text(run))}</p>{state_note(run)}'
        f'<dl class="facts">{facts}</dl></header>'
    )


def facts_of(run: RunData) -> list[tuple[str, str]]:
    """The header's short list; what is unknown is left out."""
    model = run.config.get("model") or {}
    date = run.last_change
    steps = str(len(run.metrics))
    if run.planned_steps is not None and run.planned_steps != len(run.metrics):
        steps += f" of {run.planned_steps}"
    facts = [
        ("Method", str(run.config.get("method") or "")),
        ("Model", str(model.get("path") or "")),
        ("Steps", steps),
        ("Running time", duration(run.seconds) if run.seconds is not None else ""),
        ("Last step written", f"{date:%d %B %Y, %H:%M}" if date else ""),
    ]
    return [(term, value) for term, value in facts if value]


def outcome_text(run: RunData) -> str:
    """The outcome in words, on held-out problems and in training."""
    sentence = outcome_sentence(run.evaluations)
    if not run.metrics:
        return f"No step has been taken yet. {sentence}".strip()
    training = training_sentence(run.metrics) or f"{plural(len(run.metrics), 'step')} taken."
    return f"{sentence or 'Nothing was measured on held-out problems.'} {training}"


def state_note(run: RunData) -> str:
    """A line for runs that are not over."""
    if run.is_finished:
        return ""
    planned = f" of {run.planned_steps}" if run.planned_steps is not None else ""
    steps = f"{len(run.metrics)}{planned} steps are done"
    return (
        f'<p class="state" role="note">This run has not finished: {steps}. It was interrupted or '
        "is still going; the same command resumes it.</p>"
    )


def outcome_section(run: RunData, charts: Sequence[Chart]) -> str:
    """The table of before and after, and the accuracy's course beside it."""
    parts = [outcome_table(run), *(figure(chart) for chart in charts)]
    filled = [part for part in parts if part]
    if not filled:
        return ""
    return (
        f'<section id="outcome"><h2>Outcome</h2><div class="outcome-parts parts{len(filled)}">'
        f"{''.join(filled)}</div></section>"
    )


def outcome_table(run: RunData) -> str:
    before, after = first_and_last(run.evaluations)
    measured = after or before
    if measured is None:
        return ""
    later = "After" if after is None or after["label"] == "after" else f"Step {after['step']}"
    body = "".join(outcome_line(row) for row in outcome_rows(before, after))
    return (
        '<div><div class="scroll" tabindex="0" role="region" aria-label="Before and after">'
        '<table class="outcome-table"><thead><tr>'
        f'<th scope="col">Held-out problems</th><th scope="col">Before</th><th scope="col">{later}'
        f'</th><th scope="col">Change</th></tr></thead><tbody>{body}</tbody></table></div>'
        f'<p class="note">{escape(footnote(measured))}</p></div>'
    )


def outcome_line(row: OutcomeRow) -> str:
    if row.heading:
        return f'<tr class="domain"><th scope="rowgroup" colspan="4">{escape(row.label)}</th></tr>'
    kind, word = {True: ("better", "better"), False: ("worse", "worse"), None: ("", "")}[row.better]
    arrow = f'<span class="{kind}" title="{word}">{escape(row.change)}</span>'
    return (
        f'<tr><th scope="row">{escape(row.label)}</th><td>{escape(row.before)}</td>'
        f"<td>{escape(row.after)}</td><td>{arrow}</td></tr>"
    )


def sample_section(sample: Sample) -> str:
    """The browser of completions; script.js fills it from the data."""
    if not sample.steps:
        return ""
    shown = plural(len(sample.steps), "recorded step")
    lead = f"Problems with their attempts and corrections, from {shown}."
    if sample.num_left_out:
        lead += (
            f" The other {sample.num_left_out} of {sample.num_recorded_steps} recorded steps are "
            "left out to keep this page small; the run's rollouts/ folder has them all."
        )
    return (
        f'<section id="sample"><h2>Completions</h2><p class="lead">{escape(lead)}</p>'
        '<div class="controls" id="sample-controls"></div>'
        '<p class="note" id="sample-status" role="status"></p>'
        '<div id="sample-cards"><noscript>Reading completions needs JavaScript; they are also in '
        "the run's rollouts/ folder.</noscript></div>"
        f'<script type="application/json" id="sample-data">{script_json(sample.steps)}</script>'
        "</section>"
    )


def other_metrics_section(curves: Curves) -> str:
    """Every metric that no chart shows."""
    names = other_metrics(curves)
    if not names:
        return ""
    lines = []
    for name in names:
        values = curves.column(name)
        known = [value for value in values if value is not None]
        cells = "".join(
            f"<td>{number(value)}</td>" for value in (known[0], known[-1], min(known), max(known))
        )
        lines.append(
            f'<tr><th scope="row"><code>{escape(name)}</code></th><td>{sparkline(values)}</td>'
            f"{cells}</tr>"
        )
    heads = "".join(
        f'<th scope="col">{head}</th>'
        for head in ("Metric", "Course", "First", "Last", "Least", "Most")
    )
    return folded(
        "All other metrics",
        '<div class="scroll" tabindex="0" role="region" aria-label="All other metrics">'
        f'<table class="metrics-table"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>",
    )


def config_section(run: RunData) -> str:
    if not run.config_text:
        return ""
    return folded("Configuration", f'<pre tabindex="0">{escape(run.config_text)}</pre>')


def environment_section(run: RunData) -> str:
    if not run.environment:
        return ""
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in flat(run.environment)
    )
    table = f'<table class="environment-table"><tbody>{lines}</tbody></table>'
    return folded("Environment", f'<div class="scroll" tabindex="0">{table}</div>')


def flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested objects as "outer.inner" lines."""
    lines: list[tuple[str, str]] = []
    for name, inner in value.items():
        if isinstance(inner, dict):
            lines += flat(inner, f"{prefix}{name}.")
        else:
            text = inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)
            lines.append((f"{prefix}{name}", text))
    return lines


def folded(title: str, body: str) -> str:
    return f'<details class="folded"><summary><h2>{escape(title)}</h2></summary>{body}</details>'
