"""The tutorial, from an empty folder to the first trained steps, by its own files and commands."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mgrpo.cli import parse
from mgrpo.metrics.log import read_metrics
from scripts.tutorial import SCRIPT, main, tutorial_files
from tests.contracts.sources import ROOT

MGRPO = (
    f'mgrpo() {{ "{sys.executable}" -m mgrpo "$@"; }}\npython() {{ "{sys.executable}" "$@"; }}\n'
)


def test_the_tutorial_has_rows_a_reward_and_commands_that_we_have() -> None:
    files = tutorial_files()
    assert files.keys() == {"make_rows.py", "rewards.py", SCRIPT}
    first, *commands = [shlex.split(line) for line in files[SCRIPT].splitlines()]
    assert first == ["python", "make_rows.py"]
    assert [words[1] for words in commands] == ["init", "check", "train", "report", "runs"]
    for words in commands:
        assert words[0] == "mgrpo"
        parse(words[1:])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_its_commands_lead_to_a_trained_step_and_a_report(tmp_path: Path) -> None:
    main(str(tmp_path))
    script = MGRPO + (tmp_path / SCRIPT).read_text(encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1700,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_metrics(tmp_path / "runs" / "mine")
    assert [row["step"] for row in rows] == list(range(5))
    assert any(row["learner/grad_norm"] for row in rows), "no step has learnt anything"
    assert (tmp_path / "runs" / "mine" / "report.html").is_file()
    assert "mine" in done.stdout.splitlines()[-1]
