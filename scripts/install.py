"""Make .venv and install exact versions into it; `make setup` runs this.

A complete .venv is left alone: a file inside it (scripts/venv_state.py) says what it was made
from. An interrupted installation is thrown away and begun anew.

    python3.11 -m scripts.install --extra cpu
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from scripts.machine import probe
from scripts.preflight import GOALS, find_problems, report
from scripts.steps import Step, StepFailed, run_step
from scripts.venv_state import (
    VenvState,
    must_start_afresh,
    read_state,
    wanted_state,
    write_state,
)

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(".venv")
LOG = VENV / "setup.log"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
QUIET = {
    "DS_BUILD_OPS": "0",  # DeepSpeed's own kernels are not used: torch's optimizers are
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_PROGRESS_BAR": "off",
}


def main() -> int:
    options = parse_options()
    os.chdir(ROOT)
    found = read_state(VENV)
    extra = options.extra or (found.extra if found else "cpu")
    wanted = wanted_state(ROOT, extra=extra)
    problems = find_problems(probe(ROOT), extra=extra, goal=options.goal)
    if found == wanted:
        # What was needed to install is no longer missed; the memory to run in still is.
        return report([p for p in problems if p.matters_after_setup])
    if report(problems):
        return 2

    os.environ.update(QUIET)
    start = time.monotonic()
    try:
        install(wanted, afresh=must_start_afresh(found, wanted))
    except StepFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; `make setup` begins anew", file=sys.stderr)
        return 130
    print(f"installed in {(time.monotonic() - start) / 60:.1f} minutes")
    return 0


def install(wanted: VenvState, *, afresh: bool) -> None:
    """Bring .venv to the state `wanted`, from nothing where `afresh`."""
    if afresh:
        print("removing .venv: it is half done, or was made for another Python or extra")
        discard(VENV)
    VENV.mkdir(exist_ok=True)
    write_state(VENV, replace(wanted, status="installing"))
    for step in steps(wanted.extra):
        run_step(step, log=LOG)
    write_state(VENV, wanted)


def discard(folder: Path) -> None:
    """Remove `folder`. It is renamed first: half removed, it could be taken for a good one."""
    doomed = folder.with_name(f"{folder.name}-removed")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Install the project into .venv.")
    parser.add_argument(
        "--extra",
        choices=("", "cpu", "gpu"),
        default="",
        help="kind of machine; without it what .venv was made for, else cpu",
    )
    parser.add_argument("--goal", choices=GOALS, default="setup")
    return parser.parse_args()


def steps(extra: str) -> list[Step]:
    """The commands of an installation, in order."""
    python = str(VENV / "bin" / "python")
    pip = [python, "-m", "pip", "install"]
    make_venv = Step("making .venv", [sys.executable, "-m", "venv", str(VENV)])
    packages = cpu_steps(pip) if extra == "cpu" else gpu_steps(pip)
    return [
        make_venv,
        *packages,
        Step(
            "adding this project to .venv",
            [*pip, "--no-deps", "--no-build-isolation", "-e", "."],
        ),
        Step("importing everything once", [python, "-m", "scripts.import_check"]),
    ]


def cpu_steps(pip: list[str]) -> list[Step]:
    """Only what the lock names: a resolver would add packages that do not import here."""
    lock = Path("requirements/cpu.txt")
    torch = pinned(lock, "torch")
    alone = [*pip, "--no-deps"]
    count = sum("==" in line for path in (lock, Path(DEV)) for line in path.open(encoding="utf-8"))
    return [
        # Build tools first: the few packages without wheels are built with these versions.
        Step("installing build tools", [*alone, pinned(lock, "setuptools")]),
        Step(
            f"installing {torch} (200 MB)",
            [*alone, torch],
            # The default package index has no CPU builds; where pip is configured with an index
            # that does, that one is right. PyTorch's own is the other place to look.
            otherwise=[*alone, "--extra-index-url", TORCH_CPU_INDEX, torch],
            hint=f"torch's CPU build comes from {TORCH_CPU_INDEX}: can this machine reach it?",
        ),
        Step(
            f"installing {count} packages, a few minutes",
            [*alone, "--no-build-isolation", "--use-pep517", "-r", str(lock), "-r", DEV],
        ),
    ]


def gpu_steps(pip: list[str]) -> list[Step]:
    return [
        Step(
            "installing vLLM's CUDA build, several GB",
            [*pip, "-r", "requirements/gpu.txt", "-c", "requirements/gpu-constraints.txt"],
        ),
        Step(
            "installing model files and tools",
            [*pip, "--no-deps", "-r", "requirements/gpu-no-deps.txt", "-r", DEV],
        ),
    ]


DEV = "requirements/dev.txt"


def pinned(lock: Path, name: str) -> str:
    """The lock's requirement for one package, e.g. "torch==2.13.0+cpu"."""
    for line in lock.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}=="):
            return line
    raise SystemExit(f"{lock} pins no {name}")


if __name__ == "__main__":
    sys.exit(main())
