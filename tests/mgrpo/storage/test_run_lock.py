"""Two runs of one name: the second is refused while the first lives, and only then."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mgrpo.storage.run_lock
from mgrpo.errors import RunDirectoryError
from mgrpo.storage.run_lock import Holder, run_lock
from tests.repository import REPOSITORY

HOLD = """
import sys, time
from pathlib import Path
from mgrpo.storage.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("holds", flush=True)
    sys.stdin.readline()
print("let go", flush=True)
"""


class Other:
    """Another process that holds a run's folder until it is told to let go, or killed."""

    def __init__(self, run_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(run_dir)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.said() == "holds"

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def let_go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.said() == "let go"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=10)


@pytest.fixture
def start_other() -> Iterator[type[Other]]:
    started: list[Other] = []

    class Watched(Other):
        def __init__(self, run_dir: Path) -> None:
            super().__init__(run_dir)
            started.append(self)

    yield Watched
    for other in started:
        other.process.kill()
        other.process.wait(timeout=10)
        for stream in (other.process.stdin, other.process.stdout, other.process.stderr):
            assert stream is not None
            stream.close()


def foreign_record(run_dir: Path, **changes: object) -> Path:
    """What a run on another machine, whose file system has no locks across them, leaves."""
    file = run_dir.parent / f".{run_dir.name}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    record = {"host": "node17", "machine": "another", "pid": 4711, "since": "noon", "beats": 3}
    file.write_text(json.dumps(record | changes))
    return file


@pytest.fixture
def short_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mgrpo.storage.run_lock, "WATCH_S", 0.3)
    monkeypatch.setattr(mgrpo.storage.run_lock, "POLL_S", 0.05)


def test_the_second_is_refused_and_told_who_has_it(tmp_path: Path, start_other) -> None:
    run_dir = tmp_path / "runs" / "twice"
    other = start_other(run_dir)
    with pytest.raises(RunDirectoryError) as refused, run_lock(run_dir):
        pass
    text = str(refused.value)
    assert f"process {other.process.pid} on {os.uname().nodename}" in text
    assert time.strftime("%Y-%m-%d") in text
    assert "--run NAME" in text
    other.let_go()
    with run_lock(run_dir):
        pass


def test_after_a_kill_the_name_is_free_at_once(tmp_path: Path, start_other) -> None:
    run_dir = tmp_path / "twice"
    other = start_other(run_dir)
    other.kill()
    assert (tmp_path / ".twice.lock").exists()
    began = time.monotonic()
    with run_lock(run_dir):
        assert time.monotonic() - began < 1
        with pytest.raises(RunDirectoryError, match=f"process {os.getpid()} "), run_lock(run_dir):
            pass
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(st.sampled_from(["start", "kill", "end"]), min_size=2, max_size=6))
def test_whatever_happened_before_the_name_is_taken_exactly_while_its_run_lives(
    tmp_path: Path, start_other, actions: list[str]
) -> None:
    run_dir, holder = tmp_path / "run", None
    for action in actions:
        if action == "start" and holder is None:
            holder = start_other(run_dir)
        elif action == "kill" and holder is not None:
            holder = holder.kill()
        elif action == "end" and holder is not None:
            holder = holder.let_go()
        if holder is None:
            with run_lock(run_dir):
                pass
        else:
            with pytest.raises(RunDirectoryError, match="is active"), run_lock(run_dir):
                pass
    if holder is not None:
        holder.kill()


def test_a_child_of_a_killed_run_does_not_keep_the_name(tmp_path: Path) -> None:
    code = HOLD.replace(
        'print("holds"',
        'import subprocess; c = subprocess.Popen(["sleep", "20"]); print(c.pid); print("holds"',
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "x")],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None and run.stdin is not None
    child = int(run.stdout.readline())
    try:
        assert run.stdout.readline() == "holds\n"
        run.kill()
        run.wait(timeout=10)
        with run_lock(tmp_path / "x"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        run.stdout.close()
        run.stdin.close()


def test_nothing_is_left_and_no_folder_is_made(tmp_path: Path) -> None:
    run_dir = tmp_path / "a" / "b" / "run"
    with run_lock(run_dir):
        assert not run_dir.exists()
    assert list(tmp_path.iterdir()) == []
    with run_lock(run_dir):
        run_dir.mkdir()
    assert [path.name for path in run_dir.parent.iterdir()] == ["run"]


def test_one_folder_by_two_paths_is_one_run(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    with run_lock(Path("run")):
        for path in (tmp_path / "run", tmp_path / "link" / "run"):
            with pytest.raises(RunDirectoryError, match="is active"), run_lock(path):
                pass
        with run_lock(Path("run2")):
            pass


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunDirectoryError, match=r"output\.runs_dir"),
        run_lock(tmp_path / "file" / "run"),
    ):
        pass


def test_a_silent_holder_elsewhere_is_outlived(tmp_path: Path, short_watch) -> None:
    foreign_record(tmp_path / "run")
    notes: list[str] = []
    with run_lock(tmp_path / "run", note=notes.append):
        pass
    assert len(notes) == 1
    assert "process 4711 on node17, since noon" in notes[0]


def test_a_holder_elsewhere_that_beats_is_respected(tmp_path: Path, monkeypatch) -> None:
    file = foreign_record(tmp_path / "run")
    monkeypatch.setattr(mgrpo.storage.run_lock, "POLL_S", 0.05)
    monkeypatch.setattr(time, "sleep", lambda s: file.write_text(file.read_text() + " "))
    with (
        pytest.raises(RunDirectoryError, match="process 4711 on node17"),
        run_lock(tmp_path / "run", note=lambda line: None),
    ):
        pass
    assert "4711" in file.read_text()  # it is the other's still


def test_without_flock_the_heartbeat_decides(tmp_path: Path, short_watch, monkeypatch) -> None:
    monkeypatch.setattr(mgrpo.storage.run_lock, "try_flock", lambda descriptor: None)
    monkeypatch.setattr(mgrpo.storage.run_lock, "HEARTBEAT_S", 0.05)
    run_dir = tmp_path / "run"
    with (
        run_lock(run_dir),
        pytest.raises(RunDirectoryError, match="is active"),
        run_lock(run_dir, note=lambda line: None),
    ):
        pass
    foreign_record(run_dir, machine=mgrpo.storage.run_lock.own_machine())
    with run_lock(run_dir, note=lambda line: None):
        pass


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=80),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_whatever_a_leftover_file_holds_the_name_is_free(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / ".run.lock"
    file.write_bytes(content)
    with run_lock(tmp_path / "run"):
        record = json.loads(file.read_text())
        assert record["pid"] == os.getpid()
    assert not file.exists()


def test_many_at_once_never_hold_it_together(tmp_path: Path) -> None:
    """Takes and lets go as fast as it can in several processes; a counter shows an overlap."""
    code = """
import sys, time
from pathlib import Path
from mgrpo.errors import RunDirectoryError
from mgrpo.storage.run_lock import run_lock
folder, taken = Path(sys.argv[1]), 0
end = time.monotonic() + 1.5
while time.monotonic() < end:
    try:
        with run_lock(folder / "run"):
            (folder / "inside").touch(exist_ok=False)
            (folder / "inside").unlink()
            taken += 1
    except RunDirectoryError:
        time.sleep(0.001)
print(taken)
"""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    said = [racer.communicate(timeout=60) for racer in racers]
    assert [errors for _, errors in said] == ["", "", ""]
    assert sum(int(output) for output, _ in said) > 3


def test_a_holder_is_read_back_as_it_was_written() -> None:
    holder = Holder.this_process()
    assert holder.pid == os.getpid()
    assert str(holder).startswith(f"process {os.getpid()} on ")
