"""report.html: one file that explains a run, with nothing fetched from elsewhere.

The page forbids everything but its own style and script by a content security policy that
names their hashes, so that even an escaping mistake could not run a completion's text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import jinja2
from markupsafe import Markup
from pydantic import ValidationError

from mgrpo import uplot
from mgrpo.config import RunConfig
from mgrpo.config.yaml_core import dump_yaml
from mgrpo.metrics.learning import learning_sentence
from mgrpo.metrics.rows import Row
from mgrpo.report.alarm_table import alarm_lines
from mgrpo.report.chart import Values
from mgrpo.report.curves import Curves, accuracy, all_charts, curve_note, other_metrics
from mgrpo.report.outcome import (
    first_and_last,
    footnote,
    outcome_rows,
    outcome_sentence,
    training_sentence,
)
from mgrpo.report.run_data import RunData, load_run
from mgrpo.report.shown_steps import COMPACT, MAX_STEPS_BYTES, ShownSteps, load_shown_steps
from mgrpo.report.words import duration, number, plural
from mgrpo.storage.policies import early_end_of

REPORT_FILE = "report.html"
SCRIPTS = ("charts.js", "completions.js")


def write_report(run_dir: Path | str, *, max_steps_bytes: int = MAX_STEPS_BYTES) -> Path:
    """Write `report.html` into a run's directory and return its path.

    Works at any time: before the first step, while the run goes on, after an interruption.

    Args:
        run_dir: the run's directory.
        max_steps_bytes: room for recorded completions; the page says what it leaves out.

    Raises:
        RunDirectoryError: the directory holds no run, or a damaged one.
    """
    page = report_page(run_dir, max_steps_bytes=max_steps_bytes)
    return written_to(Path(run_dir) / REPORT_FILE, page)


def report_page(
    run_dir: Path | str, *, max_steps_bytes: int = MAX_STEPS_BYTES, live_state: str = ""
) -> str:
    """The page about a run (see `write_report`), which follows it where it is served
    (`live_state`: see `rendered`)."""
    run = load_run(run_dir)
    return render(run, load_shown_steps(run, max_steps_bytes), live_state=live_state)


def render(run: RunData, shown: ShownSteps, *, live_state: str = "") -> str:
    """The whole page."""
    curves = Curves(run)
    before, after = first_and_last(run.evaluations)
    measured = after or before
    return rendered(
        "page.html.j2",
        run=run,
        outcome=outcome_text(run),
        facts=facts_of(run),
        rows=outcome_rows(before, after),
        later="After" if after is None or after["label"] == "after" else f"Step {after['step']}",
        footnote=footnote(measured) if measured else "",
        alarms=alarm_lines(run),
        accuracy=accuracy(curves),
        charts=all_charts(curves),
        curve_note=curve_note(run),
        shown=shown,
        metrics={name: curves.column(name) for name in other_metrics(curves)},
        changed=changed_keys(run),
        environment=flat(run.environment),
        live_state=live_state,
    )


def rendered(template: str, *, live_state: str = "", **values: Any) -> str:
    """A page with its style and script, which no others may join.

    Args:
        live_state: a page that is served by `mgrpo.report.live` shows this state of the runs'
            files, and follows them. "" for a page that stands for itself.
    """
    style = f"{uplot.text_of(uplot.STYLE)}\n{asset('style.css')}"
    script = "\n".join(
        [f"/*\n{uplot.text_of(uplot.LICENSE)}*/", uplot.text_of(uplot.SCRIPT), *map(asset, SCRIPTS)]
    )
    connect = ""
    if live_state:
        script += f"\nconst drawnState = {json.dumps(live_state)};\n{asset('live.js')}"
        connect = "connect-src 'self'; "
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(asset),
    )
    environment.filters |= {"number": number, "plural": plural, "sparkline": sparkline}
    environment.policies["json.dumps_kwargs"] = COMPACT
    return environment.get_template(template).render(
        **values,
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; style-src '{source_hash(style)}'; "
        f"script-src '{source_hash(script)}'; {connect}base-uri 'none'; form-action 'none'",
        written=f"{datetime.now().astimezone():%d %B %Y at %H:%M}",
    )


def written_to(path: Path, page: str) -> Path:
    """The page's path, once it is there as a whole."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(page, encoding="utf-8", errors="replace")
    unfinished.replace(path)
    return path


def asset(name: str) -> str:
    """A file that lies beside this module, also where the package is installed as a zip."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def source_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def facts_of(run: RunData) -> dict[str, str]:
    """The header's short list; what is unknown is empty."""
    date = run.last_change
    steps = str(len(run.metrics))
    if run.planned_steps is not None and run.planned_steps != len(run.metrics):
        steps += f" of {run.planned_steps}"
    end = early_end_of(run.run_dir)
    return {
        "Method": run.config.get("method") or "",
        "Model": (run.config.get("model") or {}).get("path") or "",
        "Steps": steps,
        "Ended early": "" if end is None else end.reason,
        "Running time": duration(run.seconds) if run.seconds is not None else "",
        "Cost": "" if run.cost is None else f"{run.cost:.2f}",
        "Generated": throughput(run.metrics),
        "Memory": memory(run.metrics, "memory/run_gib"),
        "Learner's GPU memory": memory(run.metrics, "memory/learner_peak_gib"),
        "Last step written": f"{date:%d %B %Y, %H:%M}" if date else "",
    }


def throughput(metrics: Sequence[Row]) -> str:
    """Generated tokens per second of a step, the median over steps; "" where unknown."""
    rates = [row["tokens/per_s"] for row in metrics if row.get("tokens/per_s")]
    return f"{number(median(rates))} tokens/s" if rates else ""


def memory(metrics: Sequence[Row], name: str) -> str:
    """The most of a metric in GiB over the steps; "" where unknown."""
    known = [row[name] for row in metrics if row.get(name) is not None]
    return f"{max(known):.1f} GiB" if known else ""


def changed_keys(run: RunData) -> str:
    """The recipe without what has its default, as YAML; "" where it is of another version."""
    try:
        config = RunConfig.model_validate(run.config)
    except ValidationError:
        return ""
    return dump_yaml(config.model_dump(mode="json", exclude_defaults=True))


def outcome_text(run: RunData) -> str:
    """The outcome in words, on held-out problems and in training."""
    sentence = outcome_sentence(run.evaluations)
    if not run.metrics:
        return f"No step has been taken yet. {sentence}".strip()
    training = training_sentence(run.metrics) or f"{plural(len(run.metrics), 'step')} taken."
    measured = sentence or "Nothing was measured on held-out problems."
    return f"{training} {measured} {learning_sentence(run.metrics)}".strip()


def sparkline(values: Values) -> str:
    """Points of an SVG polyline in a box of 100 by 24."""
    known = {index: value for index, value in enumerate(values) if value is not None}
    low, high = min(known.values()), max(known.values())
    width, height = max(len(values) - 1, 1), (high - low) or 1.0
    return " ".join(
        f"{1 + 98 * index / width:.1f},{22 - 20 * (value - low) / height:.1f}"
        for index, value in known.items()
    )


def flat(value: dict[str, object], prefix: str = "") -> dict[str, str]:
    """Nested objects as "outer.inner" lines."""
    lines: dict[str, str] = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            lines |= flat(inner, f"{prefix}{name}.")
        else:
            text = inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)
            lines[f"{prefix}{name}"] = text
    return lines
