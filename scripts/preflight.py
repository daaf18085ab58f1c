"""Find everything that would make an installation fail, before anything is downloaded.

Runs on Python 3.8 and newer with the standard library alone: the wrong Python is one of the things
to find. All faults are listed at once, each with what to do.
"""

from __future__ import annotations

import ctypes
import math
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Iterator  # noqa: UP035 (Python 3.8)

GIB = 1024**3
# .venv takes 3.2 GiB for the CPU, measured, and some 12 for a GPU; pip needs room to unpack, too.
DISK_NEEDED_GIB = {"cpu": 6, "gpu": 20}
MEMORY_NEEDED_GIB = 6  # two engines, the learner and Ray of the quickstart
PROCESSORS = {"cpu": ("x86_64", "aarch64"), "gpu": ("x86_64",)}
MIN_NVIDIA_DRIVER = 580  # the first that runs CUDA 13, which torch 2.13 is built for
LIBNUMA = "libnuma.so.1"
COMPILERS = {"C": ("cc", "gcc", "clang"), "C++": ("c++", "g++", "clang++")}


@dataclass(frozen=True)
class Fault:
    """One thing that is in the way, and what to do about it."""

    what: str
    remedy: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{'fault' if self.fatal else 'warning'}: {self.what}\n    {self.remedy}"


def find_faults(extra: str, goal: str) -> Iterator[Fault]:
    """Everything in the way of installing `extra` ("cpu" or "gpu") here for `goal`.

    The goal "image" installs what runs elsewhere, on a machine that has the GPU.
    """
    python = ".".join(map(str, sys.version_info[:2]))
    if python not in ("3.11", "3.12", "3.13"):
        yield Fault(
            f"Python {python} is not supported; 3.11, 3.12 and 3.13 are.",
            "Install whichever your distribution has (Debian 12: apt-get install python3.11 "
            "python3.11-venv python3.11-dev; Ubuntu 24.04: the same with 3.12; Debian 13: with "
            "3.13), or name one: make setup PYTHON=/path/to/python",
        )
    if not (find_spec("venv") and find_spec("ensurepip")):  # Debian may ship neither
        yield Fault(
            f"This Python {python} cannot make virtual environments.",
            f"Debian, Ubuntu: apt-get install python{python}-venv",
        )
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        yield Fault(
            f"The header files of Python {python} (Python.h) are missing; pycosat, which "
            "reasoning-gym needs, is compiled with them.",
            f"Debian, Ubuntu: apt-get install python{python}-dev",
        )
    missing = [name for name, programs in COMPILERS.items() if not any(map(shutil.which, programs))]
    if missing:
        yield Fault(
            f"There is no compiler for {' and none for '.join(missing)}.",
            "Debian, Ubuntu: apt-get install build-essential. Fedora, RHEL: dnf install gcc-c++",
        )
    if extra == "cpu" and not has_library(LIBNUMA):
        yield Fault(
            f"There is no {LIBNUMA}, without which vLLM's CPU build starts no engine.",
            "Debian, Ubuntu: apt-get install libnuma1. Fedora, RHEL: dnf install numactl-libs",
        )
    yield from platform_faults(extra)
    free, needed = shutil.disk_usage(str(Path())).free / GIB, DISK_NEEDED_GIB[extra]
    if free < needed:
        yield Fault(
            f"{free:.1f} GiB of disk are free here; the installation needs {needed}.",
            f"Free {needed - free:.1f} GiB (`pip cache purge` may help), or clone to a larger "
            "disk. If only the temporary folder is small, set TMPDIR.",
        )
    yield from memory_faults(goal)
    if extra == "gpu":
        yield from driver_faults(goal)


def has_library(name: str) -> bool:
    """Does the system's loader find this library?"""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def platform_faults(extra: str) -> Iterator[Fault]:
    """vLLM's and torch's ready-made builds are for some systems and processors alone."""
    system, processor, (libc, version) = platform.system(), platform.machine(), platform.libc_ver()
    cpu = read("/proc/cpuinfo")
    lacks_avx2 = processor == "x86_64" and bool(cpu) and "avx2" not in cpu
    is_new = libc == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 28)
    if system == "Linux" and is_new and processor in PROCESSORS[extra] and not lacks_avx2:
        return
    here = f"{system} with {libc or 'another C library'} {version}".strip()
    yield Fault(
        f"This is {here}, on {processor}{' without AVX2' if lacks_avx2 else ''}. vLLM and torch "
        "are built for Linux with glibc 2.28 or newer, on "
        f"{' or '.join(PROCESSORS[extra])} (x86_64 with AVX2).",
        "Use such a machine or container (Debian 10, Ubuntu 20.04, RHEL 8 or later; not Alpine), "
        "on Windows WSL 2. A virtual machine can pass its host's AVX2 through.",
    )


def memory_faults(goal: str) -> Iterator[Fault]:
    """Little memory is in the way of the quickstart, and a warning for other goals."""
    available = memory_available_gib()
    if available < MEMORY_NEEDED_GIB:
        yield Fault(
            f"{available:.1f} GiB of memory are available; the quickstart needs "
            f"{MEMORY_NEEDED_GIB}.",
            "Close other programs, or use a larger machine or container.",
            fatal=goal == "quickstart",
        )


def memory_available_gib(root: Path = Path("/")) -> float:
    """Free and reclaimable memory, or the container's limit where that is less."""
    limits = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")
    known = [int(text) for text in (read(root / path).strip() for path in limits) if text.isdigit()]
    for kib in re.findall(r"^MemAvailable:\s+(\d+)", read(root / "proc/meminfo"), re.MULTILINE):
        known.append(int(kib) * 1024)
    return min(known, default=math.inf) / GIB


def driver_faults(goal: str) -> Iterator[Fault]:
    """A GPU is needed unless an image is made, and CUDA 13 needs a new driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        driver = int(answer.stdout.split(".")[0]) if answer.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        driver = None
    if driver is None:
        yield Fault(
            "nvidia-smi finds no GPU.",
            "Install the NVIDIA driver (and, in a container, start it with --gpus all), or install "
            "for the CPU: make setup. To install here what another machine runs, in an image or "
            "from a login node: make setup EXTRA=gpu GOAL=image",
            fatal=goal != "image",
        )
    elif driver < MIN_NVIDIA_DRIVER:
        yield Fault(
            f"The NVIDIA driver is {driver}; CUDA 13 wants {MIN_NVIDIA_DRIVER} or newer.",
            "Update the driver if torch.cuda.is_available() is false after the installation.",
            fatal=False,
        )


def read(path: str | Path) -> str:
    """A file's text; empty where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
