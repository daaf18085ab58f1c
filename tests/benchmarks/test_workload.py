"""The work of the step-time benchmark is a recipe that starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.workload import PROFILES, write_workload
from mgrpo.cli import main


def test_the_workload_s_recipe_passes_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_workload(PROFILES["smoke"], 3, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["check", "recipe.yaml"]) == 0, capsys.readouterr().out
