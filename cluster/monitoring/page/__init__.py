"""The dashboards as one page that Prometheus itself serves, without Grafana."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from cluster.monitoring.boards import BOARDS
from cluster.monitoring.panels import Board
from mgrpo import uplot

HERE = Path(__file__).parent
PAGE = "index.html"
FILES = ("panels.js", "page.css")


def write_page(folder: Path) -> None:
    """Write the page, its scripts and styles into a folder that Prometheus serves under /user/.

    Its content security policy forbids what is not a file of that address.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(HERE / name, folder / name)
    for name in (uplot.STYLE, uplot.SCRIPT, uplot.LICENSE):
        (folder / name).write_text(uplot.text_of(name), encoding="utf-8")
    boards = json.dumps([as_json(board) for board in BOARDS]).replace("<", "\\u003c")
    page = (HERE / "page.html").read_text(encoding="utf-8").replace("BOARDS", boards, 1)
    (folder / PAGE).write_text(page, encoding="utf-8")


def as_json(board: Board) -> dict[str, object]:
    panels = [{**asdict(panel), "help": panel.help} for panel in board.panels]
    return {**asdict(board), "panels": panels}
