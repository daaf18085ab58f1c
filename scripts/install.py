"""Make .venv and install exact versions into it; `make setup` runs this through scripts/setup.sh.

A complete .venv is left alone: a file inside it says what it was made from. After a failed step, an
installation continues there; an interrupted one starts over, and pip keeps its downloads.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

VENV = Path(".venv")
REMOVED = Path(".venv-removed")
MADE_FROM = VENV / "made-from.txt"
LOG = VENV / "setup.log"
INPUTS = ("requirements/*.txt", "pyproject.toml", "scripts/install.py")
PYTHON = str(VENV / "bin" / "python")
# No resolver: it would add packages that do not import here. A file with another hash is refused.
PIP = [PYTHON, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--use-pep517"]
PIP += ["--no-input", "--disable-pip-version-check", "--progress-bar=off"]
LOCKED = [*PIP, "--require-hashes"]
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# Imported once at the end: what does not import is found now, not twenty minutes into a run.
HEAVY = (
    "torch, transformers, vllm.v1.engine.async_llm, deepspeed, ray.job_submission, datasets, "
    "math_verify, reasoning_gym, torch.utils.tensorboard, mgrpo"
)
PREFLIGHT_DEADLINE_S = 120
TELL_EVERY_S = 30
TAIL_LINES = 25


def main() -> None:
    parser = argparse.ArgumentParser(description="Install the project into .venv.")
    kinds = "kind of machine; without it what .venv was made for, else cpu"
    parser.add_argument("--extra", choices=("cpu", "gpu"), help=kinds)
    parser.add_argument("--goal", choices=("setup", "quickstart", "image"), default="setup")
    options = parser.parse_args()
    found = MADE_FROM.read_text(encoding="utf-8") if MADE_FROM.exists() else ""
    extra = options.extra or ("gpu" if found.startswith("gpu") else "cpu")
    wanted = complete(extra)
    installs = [] if found == wanted else [extra, sys.executable]
    preflight = ["bash", "scripts/preflight.sh", options.goal, *installs]
    if subprocess.run(preflight, check=False, timeout=PREFLIGHT_DEADLINE_S).returncode != 0:
        sys.exit(2)
    if installs:
        install(found, wanted)


def complete(extra: str) -> str:
    """What MADE_FROM says after a complete installation with this Python."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in INPUTS for path in Path().glob(pattern)):
        digest.update(f"{path}\0".encode() + path.read_bytes() + b"\0")
    return f"{extra} python3.{sys.version_info[1]} {digest.hexdigest()}"


def install(found: str, wanted: str) -> None:
    """Make .venv what is `wanted`: from nothing if that and `found` would be a mixture.

    Nothing is `found` of one made by hand, which is brought up to date in place.
    """
    start = time.monotonic()
    extra, python, _ = wanted.split()
    shutil.rmtree(REMOVED, ignore_errors=True)  # of an interrupted removal
    if found and not found.startswith(f"{extra} {python} "):
        print("removing .venv: it is half done, or was made for another Python or extra")
        VENV.rename(REMOVED)  # half removed, it could be taken for a good one
        shutil.rmtree(REMOVED)
    VENV.mkdir(exist_ok=True)
    MADE_FROM.write_text(f"{extra} interrupted", encoding="utf-8")
    try:
        run("making .venv", [sys.executable, "-m", "venv", str(VENV)])
        install_packages(extra)
        run("importing everything once", [PYTHON, "-c", f"import {HEAVY}"])
    except SystemExit:  # a failed pip leaves no incomplete package: the next call continues
        MADE_FROM.write_text(f"{extra} {python} failed", encoding="utf-8")
        raise
    MADE_FROM.write_text(wanted, encoding="utf-8")
    print(f"installed in {(time.monotonic() - start) / 60:.1f} minutes")


def install_packages(extra: str) -> None:
    """Everything the lock files of `extra` name, then this project."""
    locks = [Path("requirements", f"{name}.txt") for name in (extra, "dev")]
    pins = "".join(lock.read_text(encoding="utf-8") for lock in locks)
    # Packages without ready-made builds are built with the lock's setuptools.
    (setuptools,) = re.findall(r"(?m)^setuptools==.*(?:\n .*)*", pins)
    build_tools = VENV / "build-tools.txt"
    build_tools.write_text(setuptools, encoding="utf-8")
    run("installing build tools", [*LOCKED, "-r", str(build_tools)])
    if extra == "cpu":
        # The default package index has no CPU builds; where pip is configured with an index that
        # does, that one is right. The hashes of its files differ from those of PyTorch's own.
        (torch,) = re.findall(r"torch==[\d.]+\+cpu", Path("pyproject.toml").read_text("utf-8"))
        title = f"installing {torch} (200 MB), of pip's index or {TORCH_CPU_INDEX}"
        run(title, [*PIP, torch], [*PIP, "--extra-index-url", TORCH_CPU_INDEX, torch])
    size = "a few minutes" if extra == "cpu" else "several GB"
    files = [f"--requirement={lock}" for lock in locks]
    run(f"installing {pins.count('==')} packages, {size}", [*LOCKED, *files])
    run("adding this project to .venv", [*PIP, "--editable", "."])


def run(title: str, *commands: list[str]) -> None:
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
    hint = 'Fix the named cause, then repeat; see "Troubleshooting" in docs/install.md.'
    sys.exit("\n".join([*(f"    {line}" for line in tail), f"{title}: failed.", hint]))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; `make setup` starts over")
