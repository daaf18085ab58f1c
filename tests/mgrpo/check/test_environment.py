"""What the check says of the cluster that a run joins, and of the folders that it needs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from mgrpo.check.environment import ray_lines, runs_dir_lines
from mgrpo.config import ClusterConfig, OutputConfig


def test_it_says_that_ray_address_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setattr("mgrpo.check.environment.await_cluster", lambda cluster: cluster.joins)
    (line,) = ray_lines(ClusterConfig())
    assert line.status == "ok"
    assert "RAY_ADDRESS says head:6379" in line.detail
    assert ray_lines(ClusterConfig(address="local")) == []


def test_a_long_tmpdir_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (line,) = ray_lines(ClusterConfig())
    assert (line.status, line.name) == ("warn", "TMPDIR")
    assert str(tmp_path) in line.detail


def test_a_place_for_runs_is_looked_for_and_not_made(tmp_path: Path) -> None:
    assert runs_dir_lines(OutputConfig(runs_dir=f"{tmp_path}/a/b"), "tried") == []
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    (line,) = runs_dir_lines(OutputConfig(runs_dir=f"{tmp_path}/file/b"), "tried")
    assert line.status == "fail"
    assert "output.runs_dir" in line.detail
