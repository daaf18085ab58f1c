"""A clock that jumps: `clock.c` between a run and the system's time.

The clock of dates jumps in all processes of the run at once, as it does when a machine's time is
set; the monotonic one never does.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
OFFSET, LIBRARY = "clock", "clock.so"
VARIABLE = "MGRPO_CHAOS_CLOCK"
FORMAT = "q"


def is_possible() -> bool:
    """Whether there is a C compiler."""
    return shutil.which("cc") is not None


def compile_library(source: Path, library: Path) -> None:
    """Make a C file a library that a process can preload."""
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, timeout=60)


def environment(folder: Path) -> dict[str, str]:
    """Of a run whose clock can jump by orders in this folder; nothing without a compiler."""
    offset, library = folder / OFFSET, folder / LIBRARY
    if is_possible() and not library.exists():
        compile_library(SOURCE, library)
        offset.write_bytes(struct.pack(FORMAT, 0))
    return {"LD_PRELOAD": str(library), VARIABLE: str(offset)} if library.exists() else {}


def jump(folder: Path, by_s: int) -> str:
    """Set the clock so much ahead of where it is; returns where that is, "" where it cannot be."""
    file = folder / OFFSET
    if not file.is_file():
        return ""
    with file.open("r+b") as mapped:
        (before_s,) = struct.unpack(FORMAT, mapped.read())
        mapped.seek(0)
        mapped.write(struct.pack(FORMAT, before_s + by_s))
    return f"offset {before_s + by_s:+d} s"
