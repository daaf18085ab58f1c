"""Ctrl-C and SIGTERM as an error that unwinds the run cleanly."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mgrpo.errors import RunInterrupted


@contextmanager
def signals_as_errors() -> Iterator[None]:
    """Raise RunInterrupted in the main thread on the first SIGINT or SIGTERM.

    Later signals are ignored, so that an impatient second Ctrl-C does not leave engines behind;
    every wait of the way down has a deadline. The exit code is the shell's convention, 128 plus
    the signal's number.
    """
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            return
        stopping = True
        raise RunInterrupted(signal.Signals(number).name, 128 + number)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
