"""Disks that refuse to be written to, or are slow."""

from __future__ import annotations

import os
import resource
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.chaos import clock

SOURCE = Path(__file__).with_suffix(".c")
VARIABLE = "MGRPO_TEST_DISK"
FORMAT = "qq"
UNLIMITED, AT_ONCE = -1, 0


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """A quota: this process's writes beyond so many bytes of a file fail with EFBIG (Python ignores
    SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def preloaded(folder: Path) -> dict[str, str]:
    """Environment of a process whose folders named `checkpoints` are on a disk that `set_disk`
    sets; nothing without a C compiler.

    Args:
        folder: for the library.
    """
    if not clock.is_possible():
        return {}
    library, numbers = folder / "disk.so", folder / "disk"
    clock.compile_library(SOURCE, library)
    numbers.write_bytes(struct.pack(FORMAT, UNLIMITED, AT_ONCE))
    return {"LD_PRELOAD": str(library), VARIABLE: str(numbers)}


def set_disk(left_bytes: int = UNLIMITED, bytes_per_s: int = AT_ONCE) -> None:
    """In a process with that environment: what may still be written, then EDQUOT, and how fast."""
    if VARIABLE in os.environ:
        with Path(os.environ[VARIABLE]).open("r+b") as mapped:
            mapped.write(struct.pack(FORMAT, left_bytes, bytes_per_s))


def is_slow() -> bool:
    """Whether `set_disk` has set a speed."""
    if VARIABLE not in os.environ:
        return False
    _, bytes_per_s = struct.unpack(FORMAT, Path(os.environ[VARIABLE]).read_bytes())
    return bool(bytes_per_s != AT_ONCE)


def own_mounts(folder: Path) -> list[str]:
    """The beginning of a command that can mount, unseen by others; [] where that is not allowed.

    Args:
        folder: an empty one.
    """
    if shutil.which("unshare") is None:
        return []
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", "--mount", *as_root]
    mounts = [*command, "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    done = subprocess.run(mounts, capture_output=True, timeout=60, check=False)
    return command if done.returncode == 0 else []
