"""Memory of the run's processes on the driver's machine, and of its GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
OWN = "RssAnon:"
"""Resident memory of a process that is in no file: what several processes share counts for none."""
SHARED = "RssShmem:"
"""Resident memory of a process that others may map, too: of /dev/shm, Ray's objects among it."""


def run_memory_gib() -> float | None:
    """Of this process and all that it has started, engines and learner of a local Ray among them;
    GPU memory and other machines are not in it. None where the system does not tell."""
    known = [size for pid in below(os.getpid()) if (size := kib_of(pid, OWN)) is not None]
    return sum(known) / 2**20 if known else None


def gpu_memory_gib() -> list[float]:
    """In use on each GPU of the driver's machine now, by whatever processes, as `nvidia-smi` has
    it; empty without NVIDIA's driver or its Python library, which vLLM's CUDA build needs too."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        devices = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return [pynvml.nvmlDeviceGetMemoryInfo(device).used / 2**30 for device in devices]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def below(pid: int) -> Iterator[int]:
    """A process and all that it and its children have started."""
    yield pid
    try:
        lists = [file.read_text() for file in (PROC / str(pid) / "task").glob("*/children")]
    except OSError:  # it has ended
        return
    for text in lists:
        for child in text.split():
            yield from below(int(child))


def kib_of(pid: int, kind: str) -> int | None:
    """Of a process's resident memory what is `OWN` or `SHARED`; None where it has ended."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(kind)), None)
