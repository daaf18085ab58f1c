"""What the installation needs to know about this machine. Nothing here judges it.

Runs on any Python from 3.8 on, with nothing but the standard library.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

GIB = 1024**3
DRIVER_QUERY_DEADLINE_S = 20
CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclass(frozen=True)
class Machine:
    """What was found here. None where it could not be found out."""

    python: tuple[int, int]
    has_venv: bool
    has_headers: bool  # Python.h, to build the one dependency written in C
    has_c_compiler: bool
    has_cpp_compiler: bool
    system: str
    architecture: str
    cpu_flags: frozenset[str] | None
    glibc: tuple[int, int] | None  # None: another C library
    disk_free_gib: float
    memory_available_gib: float | None
    nvidia_driver: int | None  # major version; None: no nvidia-smi, or it found no GPU


def probe(folder: Path) -> Machine:
    """Look at the machine; `folder` is where .venv will be."""
    libc_name, libc_version = platform.libc_ver()
    return Machine(
        python=sys.version_info[:2],
        has_venv=importable("venv") and importable("ensurepip"),
        has_headers=(Path(sysconfig.get_paths()["include"]) / "Python.h").is_file(),
        has_c_compiler=any(map(shutil.which, ("cc", "gcc", "clang"))),
        has_cpp_compiler=any(map(shutil.which, ("c++", "g++", "clang++"))),
        system=platform.system(),
        architecture=platform.machine(),
        cpu_flags=cpu_flags(),
        glibc=major_minor(libc_version) if libc_name == "glibc" else None,
        disk_free_gib=shutil.disk_usage(str(folder)).free / GIB,
        memory_available_gib=memory_available_gib(),
        nvidia_driver=nvidia_driver(),
    )


def importable(module: str) -> bool:
    """Debian ships Python without parts of its own standard library."""
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def major_minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def cpu_flags() -> frozenset[str] | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    lines = [line for line in text.splitlines() if line.startswith("flags")]
    return frozenset(lines[0].partition(":")[2].split()) if lines else None


def memory_available_gib() -> float | None:
    """Free and reclaimable memory, or the container's limit where that is less."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    limits = [read_limit(path) for path in CGROUP_LIMITS]
    known = available + [limit for limit in limits if limit is not None]
    return min(known) / GIB if known else None


def read_limit(path: Path) -> int | None:
    """A control group's limit in bytes; None where there is none ("max", or no such file)."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def nvidia_driver() -> int | None:
    """Major version of the NVIDIA driver; None without a working nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=DRIVER_QUERY_DEADLINE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    first = answer.stdout.strip().split(".")[0]
    return int(first) if answer.returncode == 0 and first.isdigit() else None
