"""`mgrpo runs`, and commands that take a run of this machine by its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mgrpo.cli import main
from tests.mgrpo.report.fake_run import make_run


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_run(tmp_path / "runs" / "wide", steps=20, planned_steps=60)


def test_runs_are_listed_with_their_state(run_dir: Path, capsys) -> None:
    assert main(["runs"]) == 0
    head, row = capsys.readouterr().out.strip().splitlines()
    assert head.split()[:6] == ["run", "method", "state", "step", "training", "held-out"]
    assert row.split()[:4] == ["wide", "MGRPO", "stopped", "20/60"]
    assert "42.0" in row and row.endswith("ago")
    assert main(["runs", "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert (facts["name"], facts["num_done"], facts["num_steps"]) == ("wide", 20, 60)


def test_a_folder_without_runs_says_how_to_make_one(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 0
    assert "mgrpo train quickstart" in capsys.readouterr().out


def test_the_status_of_a_local_run_needs_no_cluster(run_dir: Path, capsys) -> None:
    assert main(["status", "wide"]) == 0
    text = capsys.readouterr().out
    assert "stopped" in text and "first attempts solve 42" in text and "mgrpo report wide" in text
    assert main(["status", "wide", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "stopped"


def test_the_logs_of_a_local_run_are_named_by_their_actors(run_dir: Path, capsys) -> None:
    assert main(["logs", "wide"]) == 2
    assert "at the end of a run" in capsys.readouterr().err
    (run_dir / "logs").mkdir()
    (run_dir / "logs" / "worker-1.out").write_text(":job_id:01\n:actor_name:LearnerRank\nupdate\n")
    assert main(["logs", "wide"]) == 0
    assert capsys.readouterr().out.startswith("==> LearnerRank")


def test_explain_takes_a_run_s_name(run_dir: Path, capsys) -> None:
    assert main(["explain", "wide", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert main(["explain", "wild"]) == 2
    assert "Runs here: wide" in capsys.readouterr().err
