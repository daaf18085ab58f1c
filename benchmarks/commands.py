"""Runs one command at a time, with a deadline, and ends its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.machine import REPOSITORY

STOP_S = 60  # for a command that was asked to end; `mgrpo train` then takes its actors down
TAIL_CHARACTERS = 3000


class CommandFailed(RuntimeError):
    """A command ended with an error or took too long."""


def run_command(
    command: Sequence[str],
    *,
    log: Path,
    deadline_s: float,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command from the repository's root and return its standard output.

    Both of its outputs are kept in `log`. `environment` is added to this process's.
    Whatever interrupts the wait (Ctrl-C, SIGTERM by way of `stop_on_sigterm`) ends the command
    first, and gives it time to end what it has started itself.

    Raises:
        CommandFailed: with the command, the reason and the end of what it said.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output,
        log.open("w", encoding="utf-8") as said,
    ):
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=said,
        )
        try:
            failure = f"exit code {code}" if (code := process.wait(deadline_s)) else ""
        except subprocess.TimeoutExpired:
            failure = f"not done after {deadline_s:g} s"
        finally:
            end(process)
            output.seek(0)
            text = output.read()
            said.write(text)
    if failure:
        tail = log.read_text(encoding="utf-8", errors="replace")[-TAIL_CHARACTERS:]
        raise CommandFailed(f"{' '.join(command)} failed, {failure}. The end of {log}:\n{tail}")
    return text


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, then make it: killed at once, a run would leave its actors behind."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        process.kill()
        process.wait()


def stop_on_sigterm() -> None:
    """Let SIGTERM unwind this process as Ctrl-C does."""

    def stop(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
