"""Where a run's folder lies, on a machine and in a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgrpo.errors import RunDirectoryError
from mgrpo.storage.runs_dir import resolve_runs_dir

JOB = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}


def test_on_a_machine_a_relative_folder_stays_relative() -> None:
    assert resolve_runs_dir("runs", {}) == "runs"


@pytest.mark.parametrize("where", [{}, JOB])
def test_a_root_of_one_s_own_comes_before_relative_folders(where: dict[str, str]) -> None:
    assert resolve_runs_dir("a/runs", {**where, "MGRPO_RUNS_ROOT": "/shared"}) == "/shared/a/runs"


def test_a_home_in_the_root_or_in_the_folder_is_spelled_out() -> None:
    assert resolve_runs_dir("runs", {"MGRPO_RUNS_ROOT": "~/x"}) == str(Path.home() / "x" / "runs")
    assert resolve_runs_dir("~/runs", JOB) == str(Path.home() / "runs")


@pytest.mark.parametrize("place", ["/shared/runs", "s3://bucket/runs"])
def test_absolute_places_are_taken_as_they_are(place: str) -> None:
    assert resolve_runs_dir(place, {**JOB, "MGRPO_RUNS_ROOT": "/elsewhere"}) == place


def test_a_job_refuses_a_folder_that_would_be_lost_with_it() -> None:
    with pytest.raises(RunDirectoryError, match=r"output\.runs_dir = runs is relative.*RUNS_ROOT"):
        resolve_runs_dir("runs", JOB)
