"""What a reward process does to itself, so that checks stay within bounds: of memory, of output, of
threads and processes that they leave behind.

It adopts these: a process whose parent has ended becomes its child, not init's, also in a session
of its own. So the pool finds all of them below it (`rewards.contained_process`). No psutil here: a
reward process starts in half a second.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

PR_SET_CHILD_SUBREAPER = 36
MAX_LEFT_BEHIND = 128
"""Threads and processes that a reward process keeps from one task to the next; a check that leaves
more behind has its process replaced. Fewer are a check's own servers and pools."""
EXIT_CODE_OF_RETIRED = 72
"""Of a process that has more than that, before a task, which is given to another one."""
MAX_OUTPUT_CHARS = 1 << 20
"""Of each stream of a reward process."""
TASKS = Path("/proc/self/task")


def contain(memory_gib: float | None) -> None:
    """Bound this process, before it imports any check.

    Args:
        memory_gib: of memory that it, and each process that it starts, may write to. None: any.
    """
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if memory_gib is not None:
        # Not RLIMIT_AS: libraries reserve many times the addresses that they ever use.
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = int(memory_gib * 2**30)
        limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is not None:
            setattr(sys, name, Bounded(stream))


class Bounded:
    """Passes a stream's first MAX_OUTPUT_CHARS on: what a check prints is in the run's log."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.left = stream, MAX_OUTPUT_CHARS

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        if self.left > 0:
            self.stream.write(text[: self.left])
            self.left -= len(text)
            if self.left <= 0:
                self.stream.write("\n[what this reward process prints from here on is left out]\n")
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


def num_left_behind() -> int:
    """Threads of this process and its children, those that it adopted among them."""
    try:
        threads = list(TASKS.iterdir())
        children = [(thread / "children").read_text().split() for thread in threads]
    except OSError:  # no Linux, or a thread that ended meanwhile
        return 0
    return len(threads) - 1 + sum(map(len, children))
