"""`mgrpo.Run`: a run's files as tables."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import mgrpo
from mgrpo.errors import ModelError, RunDirectoryError
from mgrpo.storage.run_list import runs_in, state_of
from mgrpo.storage.run_lock import WATCH_S, run_lock
from tests.mgrpo.report.fake_run import make_run


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_run(tmp_path / "runs" / "fake")


def test_a_run_s_files_are_tables(run_dir: Path) -> None:
    run = mgrpo.Run("fake")
    metrics = run.metrics()
    assert list(metrics.index) == list(range(len(metrics)))
    assert metrics["layer1/accuracy"].between(0, 1).all()
    evaluations = run.evaluations()
    assert evaluations["label"].iloc[0] == "before"
    assert (evaluations["acc_t1"] == [row[0] for row in evaluations["acc"]]).all()
    completions = run.rollouts()
    assert {"step", "layer", "text", "reward", "num_tokens"} <= set(completions.columns)
    first = int(completions["step"].min())
    assert set(run.rollouts(first)["step"]) == {first}
    assert run.rollouts([10**6]).empty
    assert run.report().read_text().startswith("<!doctype html>")


def test_a_run_without_a_policy_says_so(run_dir: Path) -> None:
    run = mgrpo.Run(run_dir)
    with pytest.raises(ModelError, match="not finished"):
        _ = run.policy
    (run_dir / "policy").mkdir()
    assert run.policy == run_dir / "policy"


def test_an_unknown_run_names_those_that_are_there(run_dir: Path) -> None:
    with pytest.raises(RunDirectoryError, match="fake"):
        mgrpo.Run("fakr")


def test_a_run_s_state_is_read_from_its_files(run_dir: Path) -> None:
    assert state_of(run_dir) == "stopped"
    with run_lock(run_dir):
        assert state_of(run_dir) == "running"
        lock = run_dir.parent / ".fake.lock"
        long_ago = time.time() - 2 * WATCH_S
        os.utime(lock, (long_ago, long_ago))  # its process was killed
        assert state_of(run_dir) == "stopped"
    (run_dir / "policy").mkdir()
    assert state_of(run_dir) == "finished"


def test_the_list_of_runs_has_the_newest_at_the_end(run_dir: Path) -> None:
    older = make_run(run_dir.parent / "older")
    for file in older.iterdir():
        os.utime(file, (1, 1))
    (run_dir.parent / "fake.inputs").mkdir()
    summaries = runs_in(run_dir.parent)
    assert [summary.name for summary in summaries] == ["older", "fake"]
    assert summaries[1].num_done == len(mgrpo.Run(run_dir).metrics())
    assert summaries[1].heldout_before is not None
