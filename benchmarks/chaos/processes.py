"""The processes of a run, by an environment variable that all of them inherit."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

VARIABLE = "MGRPO_CHAOS_RUN"
TITLES = {
    "driver": ("-m mgrpo train",),
    "engine actor": ("ray::VllmEngine", "engine-"),
    "EngineCore": ("EngineCore",),
    "learner rank": ("LearnerRank", "learner-rank-"),
    "raylet": ("/raylet/raylet",),
    "GCS": ("gcs_server",),
    "reward process": ("spawn_main",),
}
"""What the command lines of each kind of process contain; the first kind that fits is meant."""


def processes_of(run: str) -> list[psutil.Process]:
    """All living processes that inherited the variable with this value."""
    return [one for one in psutil.process_iter() if is_of(one, run)]


def is_of(process: psutil.Process, run: str) -> bool:
    try:
        is_alive = process.status() != psutil.STATUS_ZOMBIE
        return is_alive and process.environ().get(VARIABLE) == run
    except psutil.Error:
        return False


def kind_of(title: str) -> str | None:
    """The kind of process that a command line is of."""
    order = ("EngineCore", *TITLES)
    return next((kind for kind in order if any(word in title for word in TITLES[kind])), None)


def title_of(process: psutil.Process) -> str:
    try:
        return " ".join([process.name(), *process.cmdline()])
    except psutil.Error:
        return ""


def of_kind(run: str, kind: str) -> list[psutil.Process]:
    """Those of one kind, the oldest first."""
    found = [one for one in processes_of(run) if kind_of(title_of(one)) == kind]
    return sorted(found, key=lambda one: one.pid)


def kill_all(run: str) -> int:
    """End all processes of a run; returns how many there were."""
    found = processes_of(run)
    for process in found:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    return len(found)


def orphans(run: str, *, within_s: float) -> list[str]:
    """Command lines of what is still alive so long after a run's end."""
    end = time.monotonic() + within_s
    while (left := processes_of(run)) and time.monotonic() < end:
        time.sleep(0.5)
    return [title_of(one)[:200] for one in left]


def memory_mib(run: str) -> dict[str, float]:
    """Resident memory by kind of process."""
    found: dict[str, float] = {}
    for process in processes_of(run):
        with suppress(psutil.Error):
            kind = kind_of(title_of(process)) or "other"
            found[kind] = found.get(kind, 0.0) + process.memory_info().rss / 2**20
    return found


def shared_memory(run: str) -> set[str]:
    """Files in /dev/shm that a run's processes have mapped."""
    return {path for one in processes_of(run) for path in mapped_files(one.pid)}


def mapped_files(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            path = line.partition("/dev/shm/")[2]
            if path and not path.endswith("(deleted)"):
                yield f"/dev/shm/{path}"


def listening(run: str) -> set[int]:
    """Ports of TCP that a run's processes listen on."""
    pids = {one.pid for one in processes_of(run)}
    found = psutil.net_connections(kind="tcp")
    return {one.laddr.port for one in found if one.pid in pids and one.status == psutil.CONN_LISTEN}


def environment_of(run: str, folder: Path, more: Mapping[str, str]) -> dict[str, str]:
    """This process's, with a mark and a folder for temporary files."""
    return {**os.environ, VARIABLE: run, "TMPDIR": str(folder), **more}
