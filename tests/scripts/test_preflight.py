"""scripts/preflight.py: every fault at once, each with a remedy."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts import preflight
from scripts.preflight import GIB, Fault, find_faults, memory_available_gib

HAS_LIBRARY = preflight.has_library


class Disk:
    free = 80 * GIB


@pytest.fixture(autouse=True)
def good_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which everything is there, but for a GPU."""
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sys, "version_info", (3, 11, 7))
    monkeypatch.setattr(preflight, "find_spec", lambda module: module)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(preflight, "has_library", lambda name: name == "libnuma.so.1")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Disk)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(preflight, "read", lambda path: "flags : fpu avx2 fma")
    monkeypatch.setattr(preflight, "memory_available_gib", lambda: 16.0)
    has_driver(monkeypatch, None)


def has_driver(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    """Let nvidia-smi find a driver, or none."""
    code = 9 if version is None else 0
    answer = subprocess.CompletedProcess([], code, stdout=version or "No devices were found")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)


def faults(extra: str = "cpu", goal: str = "setup") -> list[Fault]:
    return list(find_faults(extra, goal))


def test_a_good_machine_has_no_faults() -> None:
    assert faults() == []


def test_libraries_are_looked_for_as_programs_load_them() -> None:
    assert HAS_LIBRARY("libc.so.6")
    assert not HAS_LIBRARY("libof-nobody.so.1")


def test_the_cuda_build_needs_no_libnuma(monkeypatch: pytest.MonkeyPatch) -> None:
    has_driver(monkeypatch, "580.95.05\n")
    monkeypatch.setattr(preflight, "has_library", lambda name: False)
    assert faults(extra="gpu") == []


def only(*programs: str) -> Callable[[str], str | None]:
    return lambda program: program if program in programs else None


@pytest.mark.parametrize(
    ("module", "name", "value", "what", "remedy"),
    [
        (sys, "version_info", (3, 14, 0), "Python 3.14 is not supported", "PYTHON="),
        (sys, "version_info", (3, 8, 1), "Python 3.8 is not supported", "python3.11"),
        (preflight, "find_spec", only("venv"), "virtual environments", "python3.11-venv"),
        (sysconfig, "get_paths", lambda: {"include": "/no"}, "Python.h", "python3.11-dev"),
        (shutil, "which", only("g++"), "no compiler for C.", "build-essential"),
        (shutil, "which", only("clang"), "no compiler for C++.", "gcc-c++"),
        (shutil, "which", only(), "no compiler for C and none for C++.", "gcc-c++"),
        (preflight, "has_library", lambda name: False, "no libnuma.so.1", "install libnuma1"),
        (platform, "system", lambda: "Darwin", "This is Darwin", "WSL 2"),
        (platform, "libc_ver", lambda: ("", ""), "with another C library", "not Alpine"),
        (platform, "libc_ver", lambda: ("glibc", "2.17"), "with glibc 2.17", "Ubuntu 20.04"),
        (platform, "machine", lambda: "riscv64", "on riscv64", "Use such a machine"),
        (preflight, "read", lambda path: "flags : fpu sse2", "x86_64 without AVX2", "host's AVX2"),
    ],
)
def test_each_obstacle_is_fatal_and_has_a_remedy(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, value: Any, what: str, remedy: str
) -> None:
    monkeypatch.setattr(module, name, value)
    (fault,) = faults()
    assert fault.fatal
    assert what in fault.what
    assert remedy in fault.remedy


def test_a_full_disk_is_named_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Disk, "free", 1.5 * GIB)
    (fault,) = faults()
    assert "1.5 GiB of disk are free here; the installation needs 6." in fault.what
    assert "Free 4.5 GiB" in fault.remedy


def test_an_aarch64_processor_needs_no_avx2_and_has_no_cuda_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(preflight, "read", lambda path: "Features : fp asimd")
    has_driver(monkeypatch, "580.95.05\n")
    assert faults() == []
    (fault,) = faults(extra="gpu")
    assert "on aarch64" in fault.what


def test_little_memory_is_a_warning_for_setup_and_fatal_for_the_quickstart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preflight, "memory_available_gib", lambda: 3.0)
    (warning,) = faults()
    (fault,) = faults(goal="quickstart")
    assert not warning.fatal
    assert fault.fatal
    assert "3.0 GiB of memory" in fault.what


def test_only_the_gpu_extra_asks_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    (fault,) = faults(extra="gpu")
    assert fault.fatal
    assert "nvidia-smi" in fault.what
    has_driver(monkeypatch, "580.95.05\n580.95.05\n")
    assert faults(extra="gpu") == []


def test_an_image_for_gpus_is_made_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    (warning,) = faults(extra="gpu", goal="image")
    assert not warning.fatal
    assert "GOAL=image" in warning.remedy
    monkeypatch.setattr(shutil, "which", only())
    assert [fault.fatal for fault in faults(goal="image")] == [True]


def test_an_old_driver_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    has_driver(monkeypatch, "550.54")
    (warning,) = faults(extra="gpu")
    assert not warning.fatal
    assert "550" in warning.what


def test_all_faults_are_listed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    monkeypatch.setattr(shutil, "which", only())
    monkeypatch.setattr(Disk, "free", GIB)
    assert [str(fault).split(":")[0] for fault in faults()] == ["fault"] * 3


@pytest.mark.parametrize(
    ("limit", "gib"), [("max\n", 8.0), ("2147483648\n", 2.0), ("68719476736\n", 8.0)]
)
def test_a_container_s_limit_counts_where_it_is_less_than_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, gib: float
) -> None:
    monkeypatch.undo()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(limit)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    8388608 kB\n")
    assert memory_available_gib(tmp_path) == gib


def test_unknown_memory_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert memory_available_gib(tmp_path) == float("inf")
    assert 0 < memory_available_gib() < float("inf")
