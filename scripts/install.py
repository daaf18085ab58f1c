"""Make .venv and install exact versions into it; `make setup` runs this through scripts/setup.sh.

A complete .venv is left alone: a file inside it says what it was made from. After a failed step, an
installation continues there; an interrupted one starts over, and pip keeps its downloads.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from scripts.preflight import find_faults, memory_faults

VENV = Path(".venv")
REMOVED = Path(".venv-removed")
STATE = VENV / "mgrpo-setup.json"
LOG = VENV / "setup.log"
INPUTS = ("requirements/*.txt", "pyproject.toml", "scripts/install.py")
PYTHON = str(VENV / "bin" / "python")
# No resolver: it would add packages that do not import here. A file with another hash is refused.
PIP = [PYTHON, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--use-pep517"]
LOCKED = [*PIP, "--require-hashes"]
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# Imported once at the end: what does not import is found now, not twenty minutes into a run.
HEAVY = (
    "torch, transformers, vllm.v1.engine.async_llm, deepspeed, ray.job_submission, datasets, "
    "math_verify, reasoning_gym, torch.utils.tensorboard, mgrpo"
)
QUIET = {
    "DS_BUILD_OPS": "0",  # DeepSpeed's own kernels are not used: torch's optimizers are
    "HF_HUB_OFFLINE": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_PROGRESS_BAR": "off",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
HINT = 'Fix the named cause, then repeat; see "Troubleshooting" in docs/install.md.'
TELL_EVERY_S = 30
TAIL_LINES = 25


def main() -> int:
    parser = argparse.ArgumentParser(description="Install the project into .venv.")
    kinds = "kind of machine; without it what .venv was made for, else cpu"
    parser.add_argument("--extra", choices=("", "cpu", "gpu"), default="", help=kinds)
    parser.add_argument("--goal", choices=("setup", "quickstart", "image"), default="setup")
    options = parser.parse_args()
    os.chdir(Path(__file__).resolve().parent.parent)
    found = read_state()
    wanted = wanted_state(options.extra or found.get("extra", "cpu"))
    if found == wanted:  # the requirements of the installation no longer matter; memory does
        faults = [fault for fault in memory_faults(options.goal) if fault.fatal]
    else:
        faults = list(find_faults(wanted["extra"], options.goal))
    for fault in faults:
        print(fault, file=sys.stderr)
    if any(fault.fatal for fault in faults):
        return 2
    if found != wanted:
        install(found, wanted)
    return 0


def install(found: dict[str, str], wanted: dict[str, str]) -> None:
    """Bring .venv from the state `found` to `wanted`: from nothing if a mixture could be left."""
    start = time.monotonic()
    incomplete = {**wanted, "inputs": ""}
    shutil.rmtree(REMOVED, ignore_errors=True)  # of an interrupted removal
    if found and (found == incomplete or {**found, "inputs": ""} != incomplete):
        print("removing .venv: it is half done, or was made for another Python or extra")
        VENV.rename(REMOVED)  # half removed, it could be taken for a good one
        shutil.rmtree(REMOVED)
    VENV.mkdir(exist_ok=True)
    STATE.write_text(json.dumps(incomplete), encoding="utf-8")
    os.environ.update(QUIET)
    try:
        run("making .venv", [sys.executable, "-m", "venv", str(VENV)])
        install_packages(wanted["extra"])
        run("importing everything once", [PYTHON, "-c", f"import {HEAVY}"])
    except SystemExit:  # a failed pip leaves no incomplete package: the next call continues
        STATE.write_text(json.dumps({**wanted, "inputs": "failed"}), encoding="utf-8")
        raise
    STATE.write_text(json.dumps(wanted), encoding="utf-8")
    print(f"installed in {(time.monotonic() - start) / 60:.1f} minutes")


def install_packages(extra: str) -> None:
    """Everything the lock files of `extra` name, then this project."""
    locks = [Path("requirements", f"{name}.txt") for name in (extra, "dev")]
    pins = "".join(lock.read_text(encoding="utf-8") for lock in locks)
    # Packages without ready-made builds are built with the lock's setuptools.
    build_tools = VENV / "build-tools.txt"
    build_tools.write_text(find(r"^setuptools==.*(?:\n .*)*", pins), encoding="utf-8")
    run("installing build tools", [*LOCKED, "-r", str(build_tools)])
    if extra == "cpu":
        # The default package index has no CPU builds; where pip is configured with an index that
        # does, that one is right. The hashes of its files differ from those of PyTorch's own.
        torch = find(r"torch==[\d.]+\+cpu", Path("pyproject.toml").read_text(encoding="utf-8"))
        run(
            f"installing {torch} (200 MB)",
            [*PIP, torch],
            [*PIP, "--extra-index-url", TORCH_CPU_INDEX, torch],
            hint=f"torch's CPU build comes from {TORCH_CPU_INDEX}: check that this machine can "
            "reach it",
        )
    size = "a few minutes" if extra == "cpu" else "several GB"
    files = [f"--requirement={lock}" for lock in locks]
    run(f"installing {pins.count('==')} packages, {size}", [*LOCKED, *files])
    run("adding this project to .venv", [*PIP, "-e", "."])


def run(title: str, *commands: list[str], hint: str = HINT) -> None:
    """Run the first of `commands` that succeeds, its output in the log; exit if all fail."""
    print(f"{title}; log: {LOG}", flush=True)
    for command in commands:
        start = time.monotonic()
        with LOG.open("a", encoding="utf-8") as log:
            print(f"$ {' '.join(command)}", file=log, flush=True)
            with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process:
                while process.poll() is None:
                    try:
                        process.wait(TELL_EVERY_S)
                    except subprocess.TimeoutExpired:
                        print(f"  {time.monotonic() - start:.0f} s ...", flush=True)
        if process.returncode == 0:
            return
        print(f"  failed with exit code {process.returncode}", flush=True)
    tail = LOG.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    sys.exit("\n".join([*(f"    {line}" for line in tail), f"{title}: failed.", hint]))


def find(pattern: str, text: str) -> str:
    """The one place in `text` that matches `pattern`."""
    (found,) = re.findall(pattern, text, re.MULTILINE)
    return str(found)


def wanted_state(extra: str) -> dict[str, str]:
    """What the state file says after a complete installation with this Python."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in INPUTS for path in Path().glob(pattern)):
        digest.update(f"{path}\0".encode() + path.read_bytes() + b"\0")
    python = ".".join(map(str, sys.version_info[:2]))
    return {"extra": extra, "python": python, "inputs": digest.hexdigest()}


def read_state() -> dict[str, str]:
    """Empty if there is no .venv, or one made by hand, which is brought up to date in place."""
    try:
        state = json.loads(STATE.read_text(encoding="utf-8"))
        return {key: str(state[key]) for key in ("extra", "python", "inputs")}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; `make setup` starts over")
