"""uPlot (https://github.com/leeoniya/uPlot, MIT): draws the report and the page of curves."""

from __future__ import annotations

from importlib.resources import files

STYLE, SCRIPT, LICENSE = "uplot.min.css", "uplot.min.js", "LICENSE"


def text_of(name: str) -> str:
    """One of its files, also where the package is installed as a zip."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
