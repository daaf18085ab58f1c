"""What the run holds on the driver's machine: memory, shared memory, files and threads of its
processes, by their role, and disk of its temporary folders and of its own one.

Written at every step to resources.jsonl where `output.resources` asks for it; `python -m
benchmarks.leaks` fits lines to it. Linux alone tells of processes.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from cluster.folders import SHORT_FOLDERS
from cluster.left_over import folders_of
from mgrpo.metrics.memory import OWN, PROC, SHARED, below, kib_of

RESOURCES_FILE = "resources.jsonl"
ROLES = {
    "engines": ("VLLM::", "VllmEngine", "engine-"),
    "learner": ("LearnerRank", "learner-rank-"),
    "rewards": ("multiprocessing.spawn",),
}
"""By role, parts of a process's command line: an actor has its class there, in a call its name.
Other processes that a run starts are Ray's."""
MEMORY, SHARED_MEMORY, FILES, THREADS = "memory_mib", "shared_mib", "files", "threads"
"""Shared memory counts once for each process that has touched it, in the role of each."""
TEMPORARY, RUN_FOLDER, DISK = "temporary_folders", "run_folder", "disk_mib"


def held() -> dict[str, float]:
    """By role/quantity, of this process and all that it has started; {} where nothing is told."""
    sums: defaultdict[str, float] = defaultdict(float)
    for pid in below(os.getpid()):
        role = "driver" if pid == os.getpid() else role_of(command_line(pid))
        memory, shared = kib_of(pid, OWN), kib_of(pid, SHARED)
        if memory is None or shared is None:  # it has ended
            continue
        sums[f"{role}/{MEMORY}"] += memory / 1024
        sums[f"{role}/{SHARED_MEMORY}"] += shared / 1024
        sums[f"{role}/{FILES}"] += num_entries(PROC / str(pid) / "fd")
        sums[f"{role}/{THREADS}"] += num_entries(PROC / str(pid) / "task")
    return dict(sums)


def on_disk(run_dir: Path, records: Collection[str]) -> dict[str, float]:
    """MiB of the folders that the run's processes have made in the temporary ones, those in memory
    among them (Ray's session, the engines' files, the copy of the last step), and of the run's own.

    Args:
        records: names in the run's folder that are left out, as are its *.jsonl files: they grow
            with every step, and are meant to.
    """
    places = {Path(place).resolve() for place in (tempfile.gettempdir(), *SHORT_FOLDERS)}
    temporary = folders_of(set(below(os.getpid())), places)
    own = [one for one in run_dir.iterdir() if one.name not in records and one.suffix != ".jsonl"]
    return {
        f"{TEMPORARY}/{DISK}": sum(map(disk_mib, temporary)),
        f"{RUN_FOLDER}/{DISK}": sum(map(disk_mib, own)),
    }


def disk_mib(path: Path) -> float:
    """Of a file, or of all below a folder; what links point to is not in it."""
    found = [path, *(Path(at) / name for at, _, names in os.walk(path) for name in names)]
    blocks = 0
    for one in found:
        with suppress(OSError):  # it was deleted meanwhile
            blocks += one.lstat().st_blocks
    return blocks * 512 / 2**20  # the kernel's blocks, whatever the disk's are


def role_of(command: str) -> str:
    """The part of a run that a process works for, by its command line."""
    return next(
        (role for role, parts in ROLES.items() if any(part in command for part in parts)), "ray"
    )


def command_line(pid: int) -> str:
    try:
        return (PROC / str(pid) / "cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def num_entries(folder: Path) -> int:
    try:
        return sum(1 for _ in folder.iterdir())
    except OSError:
        return 0
