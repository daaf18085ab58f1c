"""What a process says of its progress, for those who wait for its work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PROCESSES = Path("/proc")
COUNTED = ("rchar", "wchar", "read_bytes")  # mapped files are in the last one alone
PROGRESS_BYTES = 1 << 20
"""Fewer are no progress: a process that hangs still writes its logs and answers questions."""


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

    # For waits of the process itself; see `cluster.remote.Counter`.

    def count(self) -> int:
        return self.num_done

    def said(self) -> str:
        return f"Nothing moved in that time (last: {self.doing})."


class OwnBytes:
    """Progress of this process in files, where no board is kept; see `cluster.remote.Counter`."""

    def count(self) -> int:
        """Every MiB read or written."""
        return num_io_bytes() // PROGRESS_BYTES

    def said(self) -> str:
        return "Nothing was read or written in that time."


def num_io_bytes(process: int | None = None) -> int:
    """Bytes that a process has read and written so far; 0 where Linux does not count them, or it is
    gone.

    Args:
        process: its number; None: this one.
    """
    file = PROCESSES / ("self" if process is None else str(process)) / "io"
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    counts = dict(line.split(": ") for line in lines)
    return sum(int(counts[name]) for name in COUNTED)
