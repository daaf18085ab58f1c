"""Run one command of an installation: its output to a log, a line now and then to the person."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

DEADLINE_S = 3600  # of one step; several GB over a slow line take long
TELL_EVERY_S = 30
POLL_S = 0.2
TAIL_LINES = 25


@dataclass(frozen=True)
class Step:
    """One command, and what to try where it fails."""

    title: str
    command: list[str]
    otherwise: list[str] | None = None  # tried once where `command` fails
    hint: str = "Mend what it names (is the network there? is the disk full?), then repeat."


class StepFailed(Exception):
    """A step failed; the message ends with the end of its output."""

    def __init__(self, step: Step, reason: str, log: Path) -> None:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        tail = "\n".join(f"  | {line}" for line in lines[-TAIL_LINES:])
        super().__init__(
            f"problem: {step.title}: {reason}\n{tail}\n    {step.hint}\n    The whole log: {log}"
        )


def run_step(step: Step, *, log: Path, deadline_s: float = DEADLINE_S) -> None:
    """Run `step`, appending its output to `log`.

    Raises:
        StepFailed: it failed, and so did what there was to try otherwise.
    """
    print(f"{step.title}; log: {log}", flush=True)
    reason = run_logged(step.command, log=log, deadline_s=deadline_s)
    if reason and step.otherwise:
        print(f"  {reason}; trying another way", flush=True)
        reason = run_logged(step.otherwise, log=log, deadline_s=deadline_s)
    if reason:
        raise StepFailed(step, reason, log)


def run_logged(command: list[str], *, log: Path, deadline_s: float) -> str:
    """Run `command`; an empty string, or why it failed. Ends it on Ctrl-C and at its deadline."""
    start = time.monotonic()
    with log.open("a", encoding="utf-8") as output:
        print(f"$ {' '.join(command)}", file=output, flush=True)
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            code = watch(process, start=start, deadline_s=deadline_s)
        finally:
            process.kill()  # does nothing to one that has ended
    if code is None:
        return f"not done after {deadline_s:g} s"
    return f"failed with exit code {code}" if code else ""


def watch(process: subprocess.Popen[bytes], *, start: float, deadline_s: float) -> int | None:
    """Wait for the exit code, saying now and then how long it has been; None at the deadline."""
    told = start
    while time.monotonic() - start < deadline_s:
        code = process.poll()
        if code is not None:
            return code
        if time.monotonic() - told >= TELL_EVERY_S:
            told = time.monotonic()
            print(f"  {told - start:.0f} s ...", file=sys.stdout, flush=True)
        time.sleep(POLL_S)
    return None
