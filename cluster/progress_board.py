"""What a process says of its progress, for those who wait for its work."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PROCESSES = Path("/proc")
COUNTED = ("rchar", "wchar", "read_bytes")  # mapped files are in the last one alone
PROGRESS_BYTES = 1 << 20
"""Fewer are no progress: a process that hangs still writes its logs and answers questions."""
LOOK_S = 1.0
"""Longest single wait in Ray: a signal's handler has its effect only when that is over."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A board as it was read."""

    num_done: int  # pieces of work since the process began: micro-batches, tensors, phases
    doing: str  # the newest of them
    num_bytes: int  # read and written by the process, files and pipes; 0 outside Linux

    def is_after(self, before: Progress) -> bool:
        """Whether there was progress in between."""
        return (
            self.num_done != before.num_done or self.num_bytes - before.num_bytes >= PROGRESS_BYTES
        )


class ProgressBoard:
    """Written by the thread that works, read by another."""

    def __init__(self) -> None:
        self.num_done, self.doing = 0, "nothing yet"

    def did(self, what: str) -> None:
        """A piece of work is done, or begins."""
        self.num_done += 1
        self.doing = what

    def read(self) -> Progress:
        return Progress(self.num_done, self.doing, num_io_bytes())

    # For waits of the process itself; see `Counter`.

    def count(self) -> int:
        return self.num_done

    def said(self) -> str:
        return f"Nothing moved in that time (last: {self.doing})."


class Counter(Protocol):
    """Counts progress of what is waited for: a deadline is then for a time without any."""

    def count(self) -> int:
        """How often there was progress so far; must not wait."""
        ...

    def said(self) -> str:
        """For people: what was last seen."""
        ...


class Patience:
    """A deadline, which begins anew with each progress.

    Args:
        progress: None: the deadline is for the whole.
    """

    def __init__(self, deadline_s: float, progress: Counter | None) -> None:
        self.deadline_s, self.progress = deadline_s, progress
        self.num_seen = -1
        self.renew()

    def renew(self) -> None:
        self.renewed_at = time.monotonic()

    def left_s(self) -> float:
        """Until it is over. Looks at the progress."""
        if self.progress is not None:
            num_seen, self.num_seen = self.num_seen, self.progress.count()
            if self.num_seen != num_seen:
                self.renew()
        return self.renewed_at + self.deadline_s - time.monotonic()

    @property
    def detail(self) -> str:
        return "" if self.progress is None else self.progress.said()


class OwnBytes:
    """Progress of this process in files, where no board is kept; see `Counter`."""

    def count(self) -> int:
        """Every MiB read or written."""
        return num_io_bytes() // PROGRESS_BYTES

    def said(self) -> str:
        return "Nothing was read or written in that time."


def num_io_bytes(process: int | None = None, thread: int | None = None) -> int:
    """Bytes that a process has read and written so far; 0 where Linux does not count them, or it is
    gone.

    Args:
        process: its number; None: this one.
        thread: its number, for its part alone; None: of all.
    """
    file = PROCESSES / ("self" if process is None else str(process))
    if thread is not None:
        file = file / "task" / str(thread)
    try:
        lines = (file / "io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    counts = dict(line.split(": ") for line in lines)
    return sum(int(counts[name]) for name in COUNTED)
