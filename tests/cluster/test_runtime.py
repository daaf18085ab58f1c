"""A local Ray on a machine that is too busy to start it in Ray's time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster import runtime
from cluster.folders import RAY_SUBFOLDER
from cluster.runtime import START_TRIES, start_local
from mgrpo.errors import ClusterError

LATE = "The current node timed out during startup. This could happen because some of the raylet ..."


class BusyMachine:
    """In the place of `init_ray`: late for some tries, each of which leaves a process and files."""

    def __init__(self, folder: Path, num_late: int) -> None:
        self.files, self.num_late = folder / RAY_SUBFOLDER, num_late
        self.left: list[subprocess.Popen[bytes]] = []

    def init_ray(self, **options: object) -> str | None:
        assert not self.files.exists()
        if len(self.left) == self.num_late:
            return f"http://{options['address']}"
        self.files.mkdir()
        script = "import time; time.sleep(600)"
        self.left.append(subprocess.Popen([sys.executable, "-c", script, str(self.files)]))
        raise Exception(LATE)


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A child that is not Ray's."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_a_late_start_is_cleared_away_and_tried_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    other: subprocess.Popen[bytes],
) -> None:
    machine = BusyMachine(tmp_path, START_TRIES - 1)
    monkeypatch.setattr(runtime, "init_ray", machine.init_ray)
    assert start_local({"address": "local"}, tmp_path) == "http://local"
    assert not any(psutil.pid_exists(process.pid) for process in machine.left)
    assert other.poll() is None
    said = capsys.readouterr().err
    assert said.count("limit of 30 s") == START_TRIES - 1 and "trying again" in said


def test_a_machine_that_stays_too_busy_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = BusyMachine(tmp_path, START_TRIES)
    monkeypatch.setattr(runtime, "init_ray", machine.init_ray)
    with pytest.raises(ClusterError, match=rf"try {START_TRIES} of {START_TRIES}.* load is \d+ on"):
        start_local({}, tmp_path)
    assert not any(psutil.pid_exists(process.pid) for process in machine.left)


def test_other_errors_of_a_start_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**options: object) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr(runtime, "init_ray", fail)
    with pytest.raises(OSError, match="No space left"):
        start_local({}, tmp_path)
