"""The device that is measured: its memory, its rates, and how much of them a part took."""

from __future__ import annotations

import contextlib
import resource
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Literal

import psutil
import torch

from mgrpo.plan.gpus import KNOWN, GpuType

Device = Literal["cpu", "cuda"]
MATRIX = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrix product that a device's rate is measured by."""
PRODUCTS = 8
KIB = 1024


def known_gpu(name: str, memory_bytes: int) -> GpuType | None:
    """The data sheet of a GPU by the name that its driver reports; None: there is none here."""
    words = name.upper().replace("-", " ").split()
    names = {*words, *(first + second for first, second in pairwise(words))}  # "RTX 4090"
    of_that_name = [gpu for gpu in KNOWN.values() if gpu.name.split("-")[0] in names]
    return min(of_that_name, key=lambda gpu: abs(gpu.memory_bytes - memory_bytes), default=None)


def described(device: Device) -> dict[str, object]:
    """Name, free memory in bytes, and the data sheet's dense 16-bit rate in TFLOP/s or None."""
    if device == "cpu":
        free = psutil.virtual_memory().available
        return {"name": "cpu", "free_bytes": free, "data_sheet_tflops": None}
    properties = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    gpu = known_gpu(properties.name, total)
    return {
        "name": properties.name,
        "free_bytes": free,
        "data_sheet_tflops": gpu.tflops if gpu else None,
        "data_sheet": gpu.name if gpu else None,
    }


def matmul_tflops(device: Device, dtype: torch.dtype) -> float:
    """TFLOP/s of a square matrix product on this device: the median of several."""
    size = MATRIX[device]
    left, right = torch.rand(2, size, size, device=device).to(dtype)
    seconds = []
    for _ in range(PRODUCTS):
        rest(device)
        began = time.perf_counter()
        torch.mm(left, right)
        rest(device)
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / statistics.median(seconds[1:]) / 1e12


def rest(device: Device) -> None:
    """Wait until the device has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def begin_peak(device: Device) -> None:
    """Forget how much memory was in use before."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):  # kept from some containers: the peak is then the process's
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes(device: Device) -> int:
    """Most memory in use since `begin_peak`: tensors on a GPU, the whole process on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
