"""report.html: one file that explains a run, with nothing fetched from elsewhere.

The page forbids everything but its own style and script by a content security policy that
names their hashes, so that even an escaping mistake could not run a completion's text.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from html import escape
from importlib.resources import files
from pathlib import Path

from mgrpo.report.alarm_table import alarms_section
from mgrpo.report.charts import figure
from mgrpo.report.curves import Curves, accuracy, all_charts, curve_note
from mgrpo.report.run_data import RunData, load_run
from mgrpo.report.sample import MAX_SAMPLE_BYTES, Sample, load_sample
from mgrpo.report.sections import (
    config_section,
    environment_section,
    header_section,
    other_metrics_section,
    outcome_section,
    sample_section,
)

REPORT_FILE = "report.html"


def write_report(run_dir: Path | str, *, max_sample_bytes: int = MAX_SAMPLE_BYTES) -> Path:
    """Write `report.html` into a run's directory and return its path.

    Works at any time: before the first step, while the run goes on, after an interruption.

    Args:
        run_dir: the run's directory.
        max_sample_bytes: room for recorded completions; the page says what it leaves out.

    Raises:
        RunDirectoryError: the directory holds no run, or a damaged one.
    """
    run = load_run(run_dir)
    sample = load_sample(run, max_sample_bytes)
    path = run.run_dir / REPORT_FILE
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(render(run, sample), encoding="utf-8", errors="replace")
    unfinished.replace(path)
    return path


def render(run: RunData, sample: Sample) -> str:
    """The whole page."""
    style, script = asset("style.css"), asset("script.js")
    policy = (
        f"default-src 'none'; style-src '{source_hash(style)}'; "
        f"script-src '{source_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    curves = Curves(run)
    written = datetime.now().astimezone()
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(run.name)} · mgrpo report</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the results</a>
{header_section(run)}
<main id="main">
{outcome_section(run, accuracy(curves))}
{alarms_section(run)}
{curves_section(run, curves)}
{sample_section(sample)}
{other_metrics_section(curves)}
{config_section(run)}
{environment_section(run)}
</main>
<footer>Written by mgrpo on {written:%d %B %Y at %H:%M} from
<code>{escape(run.run_dir.resolve().name)}/</code></footer>
<script>{script}</script>
</body>
</html>
"""


def curves_section(run: RunData, curves: Curves) -> str:
    charts = all_charts(curves)
    if not charts:
        return ""
    return (
        f'<section id="curves"><h2>Curves</h2><p class="lead">{escape(curve_note(run))}</p>'
        f'<div class="charts">{"".join(figure(chart) for chart in charts)}</div></section>'
    )


def asset(name: str) -> str:
    """A file that lies beside this module, also where the package is installed as a zip."""
    return files("mgrpo.report").joinpath(name).read_text(encoding="utf-8")


def source_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
