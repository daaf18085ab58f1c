"""Pages whose numbers are written by a command and whose prose is written by people."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.machine import Result

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def write_measured(page: Path, measured: str, *, title: str) -> None:
    """Replace what stands between the marks of a page; a page that is not there yet is made.

    Raises:
        ValueError: the page is there and has not exactly one pair of marks.
    """
    if not page.exists():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f"# {title}\n\n{BEGIN}\n{END}\n", encoding="utf-8")
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{page} must hold {BEGIN} and, after it, {END}, once each.")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    page.write_text(f"{head}{BEGIN}\n{measured}\n{END}{tail}", encoding="utf-8")


def publish(result: Result, text: str, page: Path | None, *, title: str) -> None:
    """Print a benchmark's text and, last, its result as one line of JSON; put both into a page and
    the .json beside it, if one is given."""
    print(text)
    if page is not None:
        write_measured(page, text, title=title)
        page.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
