"""The example notebook: as it is kept, and run in a kernel of its own."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mgrpo.library import Run
from tests.contracts.sources import ROOT

NOTEBOOK = ROOT / "examples" / "notebook" / "train.ipynb"
LARGEST_BYTES = 200_000
STEPS = 30


def cells_of(path: Path) -> list[dict[str, Any]]:
    """Its cells with code."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_it_is_kept_with_the_outputs_of_one_run_from_its_first_cell_to_its_last() -> None:
    cells = cells_of(NOTEBOOK)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        ast.parse("".join(cell["source"]))
        assert not [one for one in cell["outputs"] if one["output_type"] == "error"]
    assert "image/png" in [kind for cell in cells for one in cell["outputs"] for kind in data(one)]
    assert NOTEBOOK.stat().st_size < LARGEST_BYTES


def data(output: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = output.get("data", {})
    return found


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.timeout(1200)
def test_it_trains_and_shows_what_happened(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    path = Path(shutil.copy(NOTEBOOK, tmp_path))
    notebook = nbformat.read(path, as_version=4)
    client.NotebookClient(
        notebook, timeout=1000, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    nbformat.write(notebook, path)
    cells = cells_of(path)
    assert all(cell["execution_count"] for cell in cells)
    run = Run(tmp_path / "runs" / "notebook")
    assert (run.state, len(run.metrics())) == ("finished", STEPS)
    shown = [kind for cell in cells for one in cell["outputs"] for kind in data(one)]
    assert "image/png" in shown and "text/html" in shown
    assert (tmp_path / "runs" / "notebook" / "report.html").is_file()
