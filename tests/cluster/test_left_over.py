"""What killed runs leave behind is deleted by the next, and nothing else is."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cluster.left_over import (
    OWNER_FILE,
    folders_of,
    label_of,
    machine,
    mark_owner,
    name_semaphores,
    owner_of,
    private_folder,
    remove_left_over,
)

PREFIX = "mgrpo-ray-"


def folder_of(place: Path, name: str, owner: str | None) -> Path:
    folder = place / f"{PREFIX}{name}"
    (folder / "r" / "sockets").mkdir(parents=True)
    if owner is not None:
        (folder / OWNER_FILE).write_text(owner)
    return folder


def test_folders_of_processes_that_are_gone_are_deleted_and_others_stay(tmp_path: Path) -> None:
    gone = subprocess.Popen(["sleep", "60"])
    owner = owner_of(psutil.Process(gone.pid))
    gone.kill()
    gone.wait(timeout=10)
    left = folder_of(tmp_path, "left", owner)
    again = folder_of(tmp_path, "again", f"{machine()} {psutil.Process().pid} 1.00")
    kept = [
        folder_of(tmp_path, "elsewhere", f"another:pid:[1] {gone.pid} 1.00"),
        folder_of(tmp_path, "unmarked", None),
        folder_of(tmp_path, "strange", "x"),
        tmp_path / "another",
    ]
    kept[-1].mkdir()
    own = folder_of(tmp_path, "own", None)
    mark_owner(own)

    found = remove_left_over(tmp_path, PREFIX)
    assert sorted(found) == sorted([left, again])  # its number belongs to another process now
    assert not left.exists() and not again.exists()
    assert all(one.is_dir() for one in [*kept, own])


def test_the_folders_of_some_processes_are_found_and_those_of_others_are_not(
    tmp_path: Path,
) -> None:
    pid, parent = os.getpid(), os.getppid()
    own = private_folder(tmp_path, PREFIX)
    of_parent = folder_of(tmp_path, "parent", owner_of(psutil.Process(parent)))
    folder_of(tmp_path, "before", f"{machine()} {pid} 1.00")  # its number is another's now
    folder_of(tmp_path, "elsewhere", f"another:pid:[1] {pid} 1.00")
    folder_of(tmp_path, "strange", "x")
    places = [tmp_path, tmp_path / "nowhere"]
    assert list(folders_of({pid}, places)) == [own]
    assert set(folders_of({pid, parent}, places)) == {own, of_parent}
    assert list(folders_of(set(), places)) == []


def test_a_process_is_the_same_one_after_the_clock_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    own = psutil.Process()
    before = owner_of(own), label_of(own)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: 0.0)
    assert (owner_of(own), label_of(own)) == before
    assert owner_of(psutil.Process(os.getppid())).rpartition(" ")[2] != before[0].rpartition(" ")[2]


def test_a_start_of_a_process_that_is_gone_says_so() -> None:
    gone = subprocess.Popen(["true"])
    process = psutil.Process(gone.pid)
    gone.wait(timeout=10)
    with pytest.raises(psutil.NoSuchProcess):
        owner_of(process)


def test_semaphores_say_whose_they_are_and_go_with_their_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.left_over.SEMAPHORES", tmp_path)
    here = multiprocessing.current_process()
    monkeypatch.setattr(here, "_config", dict(here._config))  # type: ignore[attr-defined]
    name_semaphores()
    own = multiprocessing.get_context("spawn").Lock()._semlock.name  # type: ignore[attr-defined]
    where, pid, start = label_of(psutil.Process())
    assert own.startswith(f"/mgrpo-{where}-{pid}-{start}-")
    gone = [tmp_path / f"sem.mgrpo-{where}-{one}-x" for one in ("4194305-1", f"{pid}-1")]
    kept = [
        tmp_path / f"sem{own.replace('/', '.')}",
        tmp_path / f"sem.mgrpo-{'0' * 12}-4194305-1-x",  # of another machine or container
        tmp_path / "sem.mgrpo-strange",
        tmp_path / "sem.mp-another",
    ]
    for file in (*gone, *kept):
        file.touch()
    name_semaphores()
    assert sorted(tmp_path.iterdir()) == sorted(kept)


@pytest.mark.parametrize("title", ["ray::DashboardAgent", "tail"])
def test_processes_of_ray_that_still_use_such_a_folder_are_ended(
    tmp_path: Path, title: str
) -> None:
    left = folder_of(tmp_path, "left", f"{machine()} 4194305 1.00")
    code = (
        f"import time; log = open({str(left / 'log')!r}, 'w'); print(flush=True); time.sleep(600)"
    )
    user = subprocess.Popen([title, "-c", code], executable=sys.executable, stdout=subprocess.PIPE)
    try:
        assert user.stdout is not None and user.stdout.readline()
        remove_left_over(tmp_path, PREFIX)
        assert not left.exists()
        if title == "tail":  # somebody reads a log
            assert user.poll() is None
        else:
            user.wait(timeout=20)  # it would sleep for ten minutes
    finally:
        user.kill()
        user.communicate(timeout=10)
