"""Find everything that would make an installation fail, before anything is downloaded.

Runs on any Python from 3.8 on, since the wrong Python is one of the things to find. All problems
are listed at once, each with what to do. Exit code 2 when one of them is fatal.

    python3 -m scripts.preflight --extra cpu --goal quickstart
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts.machine import Machine, probe

SUPPORTED_PYTHONS = ((3, 11), (3, 12))
# "image": what is installed here runs elsewhere, on a machine that has the GPU.
GOALS = ("setup", "quickstart", "image")
SUPPORTED_ARCHITECTURES = ("x86_64", "aarch64")
MIN_GLIBC = (2, 28)  # what the wheels of vLLM and torch are built for
# .venv takes 3.2 GiB for the CPU, measured, and some 12 for a GPU; pip needs room to unpack, too.
DISK_NEEDED_GIB = {"cpu": 6.0, "gpu": 20.0}
MEMORY_NEEDED_GIB = 6.0  # two engines, the learner and Ray of the quickstart
MIN_NVIDIA_DRIVER = 580  # the first that runs CUDA 13, which torch 2.13 is built for


@dataclass(frozen=True)
class Problem:
    """One thing that is in the way, and what to do about it."""

    what: str
    remedy: str
    fatal: bool = True
    matters_after_setup: bool = False

    def __str__(self) -> str:
        return f"{'problem' if self.fatal else 'warning'}: {self.what}\n    {self.remedy}"


def find_problems(machine: Machine, *, extra: str, goal: str) -> list[Problem]:
    """Everything in the way of `goal` (one of GOALS) with `extra` ("cpu" or "gpu")."""
    found = [
        *python_problems(machine),
        *platform_problems(machine),
        *compiler_problems(machine),
        *space_problems(machine, extra=extra, goal=goal),
    ]
    return [*found, *gpu_problems(machine, goal=goal)] if extra == "gpu" else found


def python_problems(machine: Machine) -> list[Problem]:
    version = ".".join(map(str, machine.python))
    problems = []
    if machine.python not in SUPPORTED_PYTHONS:
        problems.append(
            Problem(
                f"Python {version} is not supported; 3.11 and 3.12 are.",
                "Install whichever your distribution has (Debian 12: apt-get install python3.11 "
                "python3.11-venv python3.11-dev; Ubuntu 24.04: the same with 3.12), or name one: "
                "make setup PYTHON=/path/to/python",
            )
        )
    if not machine.has_venv:
        problems.append(
            Problem(
                f"This Python {version} cannot make virtual environments.",
                f"Debian, Ubuntu: apt-get install python{version}-venv",
            )
        )
    if not machine.has_headers:
        problems.append(
            Problem(
                f"The header files of Python {version} (Python.h) are missing; pycosat, which "
                "reasoning-gym needs, is compiled with them.",
                f"Debian, Ubuntu: apt-get install python{version}-dev",
            )
        )
    return problems


def platform_problems(machine: Machine) -> list[Problem]:
    problems = []
    if machine.system != "Linux":
        problems.append(
            Problem(
                f"This is {machine.system}; vLLM's ready-made builds are for Linux.",
                "Use a Linux machine, a container, or WSL 2 on Windows.",
            )
        )
    elif machine.glibc is None or machine.glibc < MIN_GLIBC:
        found = "another C library" if machine.glibc is None else ".".join(map(str, machine.glibc))
        problems.append(
            Problem(
                f"vLLM and torch are built for glibc 2.28 or newer; this machine has {found}.",
                "Use a newer distribution (Debian 10, Ubuntu 20.04, RHEL 8 or later), not Alpine.",
            )
        )
    if machine.architecture not in SUPPORTED_ARCHITECTURES:
        problems.append(
            Problem(
                f"There are no ready-made builds for {machine.architecture} processors.",
                "Use an x86-64 or aarch64 machine.",
            )
        )
    flags = machine.cpu_flags
    if machine.architecture == "x86_64" and flags is not None and "avx2" not in flags:
        problems.append(
            Problem(
                "This processor lacks AVX2, which vLLM's CPU engine is compiled for.",
                "Use an Intel machine from 2013 on, or an AMD machine from 2015 on; in a virtual "
                "machine, let it see the host's processor.",
            )
        )
    return problems


def compiler_problems(machine: Machine) -> list[Problem]:
    """pycosat is compiled during the installation, and torch compiles a few functions of vLLM's
    sampler the first time that they are called."""
    missing = []
    if not machine.has_c_compiler:
        missing.append("C compiler (cc, gcc or clang)")
    if not machine.has_cpp_compiler:
        missing.append("C++ compiler (c++, g++ or clang++)")
    if not missing:
        return []
    return [
        Problem(
            f"There is no {' and no '.join(missing)}.",
            "Debian, Ubuntu: apt-get install build-essential. Fedora, RHEL: dnf install gcc-c++",
        )
    ]


def space_problems(machine: Machine, *, extra: str, goal: str) -> list[Problem]:
    problems = []
    needed = DISK_NEEDED_GIB[extra]
    if machine.disk_free_gib < needed:
        problems.append(
            Problem(
                f"{machine.disk_free_gib:.1f} GiB of disk are free here; the installation needs "
                f"{needed:g}.",
                f"Free {needed - machine.disk_free_gib:.1f} GiB (`pip cache purge` may help), or "
                "clone to a larger disk. If only the temporary folder is small, set TMPDIR.",
            )
        )
    memory = machine.memory_available_gib
    if memory is not None and memory < MEMORY_NEEDED_GIB:
        problems.append(
            Problem(
                f"{memory:.1f} GiB of memory are available; the quickstart needs "
                f"{MEMORY_NEEDED_GIB:g}.",
                "Close other programs, or use a larger machine or container.",
                fatal=goal == "quickstart",
                matters_after_setup=goal == "quickstart",
            )
        )
    return problems


def gpu_problems(machine: Machine, *, goal: str) -> list[Problem]:
    if machine.nvidia_driver is None:
        return [
            Problem(
                "nvidia-smi finds no GPU.",
                "Install the NVIDIA driver (and, in a container, start it with --gpus all), or "
                "install for the CPU: make setup. To install here what another machine runs, in "
                "an image or from a login node: make setup EXTRA=gpu GOAL=image",
                fatal=goal != "image",
            )
        ]
    if machine.nvidia_driver < MIN_NVIDIA_DRIVER:
        return [
            Problem(
                f"The NVIDIA driver is {machine.nvidia_driver}; CUDA 13 wants "
                f"{MIN_NVIDIA_DRIVER} or newer.",
                "Update the driver if torch.cuda.is_available() is false after the installation.",
                fatal=False,
            )
        ]
    return []


def report(problems: list[Problem]) -> int:
    """Print the problems; 2 when one is fatal, else 0."""
    for problem in problems:
        print(problem, file=sys.stderr)
    return 2 if any(problem.fatal for problem in problems) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Check that this machine can install the project.")
    parser.add_argument("--extra", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--goal", choices=GOALS, default="setup")
    options = parser.parse_args()
    problems = find_problems(probe(Path()), extra=options.extra, goal=options.goal)
    code = report(problems)
    if not problems:
        print("This machine has what the installation needs.")
    return code


if __name__ == "__main__":
    sys.exit(main())
