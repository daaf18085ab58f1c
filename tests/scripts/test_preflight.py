"""scripts/preflight.py: every problem at once, each with a remedy."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from scripts.machine import Machine, major_minor, probe, read_limit
from scripts.preflight import Problem, find_problems, report

GOOD = Machine(
    python=(3, 11),
    has_venv=True,
    has_headers=True,
    has_c_compiler=True,
    has_cpp_compiler=True,
    system="Linux",
    architecture="x86_64",
    cpu_flags=frozenset({"avx2", "fma"}),
    glibc=(2, 36),
    disk_free_gib=80.0,
    memory_available_gib=16.0,
    nvidia_driver=None,
)


def problems_of(*, extra: str = "cpu", goal: str = "setup", **changes: Any) -> list[Problem]:
    return find_problems(dataclasses.replace(GOOD, **changes), extra=extra, goal=goal)


def test_a_good_machine_has_no_problems() -> None:
    assert problems_of() == []


@pytest.mark.parametrize(
    ("changes", "what", "remedy"),
    [
        ({"python": (3, 13)}, "Python 3.13 is not supported", "PYTHON="),
        ({"python": (3, 8)}, "Python 3.8 is not supported", "python3.11"),
        ({"has_venv": False}, "virtual environments", "python3.11-venv"),
        ({"has_headers": False}, "Python.h", "python3.11-dev"),
        ({"has_c_compiler": False}, "no C compiler", "build-essential"),
        ({"has_cpp_compiler": False}, "no C++ compiler", "gcc-c++"),
        ({"system": "Darwin"}, "Darwin", "Linux machine"),
        ({"glibc": None}, "another C library", "not Alpine"),
        ({"glibc": (2, 17)}, "has 2.17", "newer distribution"),
        ({"architecture": "riscv64"}, "riscv64", "x86-64 or aarch64"),
        ({"cpu_flags": frozenset({"sse2"})}, "lacks AVX2", "processor"),
        ({"disk_free_gib": 1.5}, "1.5 GiB of disk", "Free 4.5 GiB"),
    ],
)
def test_each_obstacle_is_fatal_and_has_a_remedy(
    changes: dict[str, Any], what: str, remedy: str
) -> None:
    (problem,) = problems_of(**changes)
    assert problem.fatal
    assert what in problem.what
    assert remedy in problem.remedy


def test_an_aarch64_processor_needs_no_avx2() -> None:
    assert problems_of(architecture="aarch64", cpu_flags=None) == []


def test_little_memory_is_a_warning_for_setup_and_fatal_for_the_quickstart() -> None:
    (warning,) = problems_of(memory_available_gib=3.0)
    (problem,) = problems_of(memory_available_gib=3.0, goal="quickstart")
    assert not warning.fatal
    assert problem.fatal
    assert problem.matters_after_setup
    assert "3.0 GiB of memory" in problem.what


def test_only_the_gpu_extra_asks_for_a_gpu() -> None:
    (problem,) = problems_of(extra="gpu")
    assert "nvidia-smi" in problem.what
    assert problems_of(extra="gpu", nvidia_driver=580) == []


def test_an_image_for_gpus_is_made_without_one() -> None:
    (warning,) = problems_of(extra="gpu", goal="image")
    assert not warning.fatal
    assert "GOAL=image" in warning.remedy
    (obstacle,) = problems_of(goal="image", has_c_compiler=False)
    assert obstacle.fatal


def test_an_old_driver_is_a_warning() -> None:
    (warning,) = problems_of(extra="gpu", nvidia_driver=550)
    assert not warning.fatal
    assert "550" in warning.what


def test_all_problems_are_listed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    found = problems_of(python=(3, 10), has_c_compiler=False, disk_free_gib=1.0)
    code = report(found)
    shown = capsys.readouterr().err
    assert code == 2
    assert shown.count("problem: ") == 3


def test_warnings_alone_do_not_stop(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(problems_of(memory_available_gib=3.0)) == 0
    assert "warning: " in capsys.readouterr().err


def test_the_probe_sees_this_machine(tmp_path: Path) -> None:
    machine = probe(tmp_path)
    assert machine.disk_free_gib > 0
    assert machine.system == "Linux"
    assert machine.memory_available_gib is not None


def test_a_container_without_a_memory_limit_has_none(tmp_path: Path) -> None:
    (tmp_path / "unlimited").write_text("max\n")
    (tmp_path / "limited").write_text("2147483648\n")
    assert read_limit(tmp_path / "unlimited") is None
    assert read_limit(tmp_path / "limited") == 2 * 2**30
    assert read_limit(tmp_path / "missing") is None


def test_a_glibc_version_with_a_patch_level_is_read() -> None:
    assert major_minor("2.36.1") == (2, 36)
