"""What the run's processes on the driver's machine hold: memory, files, threads, by their role.

Written at every step to resources.jsonl where `output.resources` asks for it; `python -m
benchmarks.leaks` fits lines to it. Linux alone tells.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

from mgrpo.metrics.memory import PROC, below, own_kib

RESOURCES_FILE = "resources.jsonl"
ROLES = {
    "engines": ("VLLM::", "VllmEngine", "engine-"),
    "learner": ("LearnerRank", "learner-rank-"),
    "rewards": ("multiprocessing.spawn",),
}
"""By role, parts of a process's command line: an actor has its class there, in a call its name.
Other processes that a run starts are Ray's."""
MEMORY, FILES, THREADS = "memory_mib", "files", "threads"


def held() -> dict[str, float]:
    """By role/quantity, of this process and all that it has started; {} where nothing is told."""
    sums: defaultdict[str, float] = defaultdict(float)
    for pid in below(os.getpid()):
        role = "driver" if pid == os.getpid() else role_of(command_line(pid))
        memory = own_kib(pid)
        if memory is None:  # it has ended
            continue
        sums[f"{role}/{MEMORY}"] += memory / 1024
        sums[f"{role}/{FILES}"] += num_entries(PROC / str(pid) / "fd")
        sums[f"{role}/{THREADS}"] += num_entries(PROC / str(pid) / "task")
    return dict(sums)


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
