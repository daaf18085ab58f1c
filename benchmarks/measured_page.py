"""Pages whose numbers are written by a command and whose prose is written by people."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.machine import Result

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def marks(part: str) -> tuple[str, str]:
    """Those of one of several measured parts of a page; "": of its only one."""
    name = f" {part}:" if part else ":"
    return BEGIN.replace(":", name), END.replace(":", name)


def write_measured(page: Path, measured: str, *, title: str, part: str = "") -> None:
    """Replace what stands between the marks of a page; a page that is not there yet is made.

    Args:
        part: which of several measured parts of the page it is.

    Raises:
        ValueError: the page is there and has not exactly one pair of marks.
    """
    begin, end = marks(part)
    if not page.exists():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f"# {title}\n\n{begin}\n{end}\n", encoding="utf-8")
    text = page.read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{page} must hold {begin} and, after it, {end}, once each.")
    head, rest = text.split(begin)
    _, tail = rest.split(end)
    page.write_text(f"{head}{begin}\n{measured}\n{end}{tail}", encoding="utf-8")


def publish(result: Result, text: str, page: Path | None, *, title: str, part: str = "") -> None:
    """Print a benchmark's text and, last, its result as one line of JSON; put both into a page and
    the .json beside it (its name ends with the part's), if one is given."""
    print(text)
    if page is not None:
        write_measured(page, text, title=title, part=part)
        name = "_".join(filter(None, (page.stem, part)))
        page.with_name(f"{name}.json").write_text(
            json.dumps(result, indent=1) + "\n", encoding="utf-8"
        )
    print(json.dumps(result))
