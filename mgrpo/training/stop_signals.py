"""Ctrl-C and SIGTERM as an exception that ends the run cleanly, at a safe point."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mgrpo.errors import RunInterrupted


class StopSignals:
    """Turns the first SIGINT or SIGTERM into RunInterrupted, at once or when `release` is called.

    Later signals are ignored, so that a second Ctrl-C does not leave engines behind; every wait of
    the shutdown has a deadline. The exit code is the shell's convention, 128 plus the signal's
    number.
    """

    def __init__(self) -> None:
        self.hold_s: float | None = None
        self.held_back: RunInterrupted | None = None
        self.is_stopping = False

    def hold(self, at_most_s: float) -> None:
        """Until `release`, a signal waits, because what it would cut through cannot be kept.

        Args:
            at_most_s: from the signal on; after that it is raised wherever the run is.
        """
        self.hold_s = at_most_s

    def release(self) -> None:
        """From here on a signal is raised at once; one that came meanwhile is raised now.

        Raises:
            RunInterrupted: the one that waited.
        """
        self.hold_s = None
        if self.held_back is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            held_back, self.held_back = self.held_back, None
            raise held_back

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The handler of SIGINT and SIGTERM."""
        if self.is_stopping:
            return
        self.is_stopping = True
        name = signal.Signals(number).name
        stop = RunInterrupted(name, 128 + number)
        if self.hold_s is None:
            raise stop
        self.held_back = stop
        signal.setitimer(signal.ITIMER_REAL, self.hold_s)
        said = f"{name}: finishing this step first, for at most {self.hold_s:g} s\n"
        os.write(2, said.encode())  # a handler may interrupt a print, so it must not print

    def hold_is_over(self, number: int, frame: FrameType | None) -> None:
        """The handler of SIGALRM."""
        self.release()


@contextmanager
def signals_as_errors() -> Iterator[StopSignals]:
    """Raise RunInterrupted in the main thread on the first SIGINT or SIGTERM."""
    signals = StopSignals()
    handlers = {
        signal.SIGINT: signals.receive,
        signal.SIGTERM: signals.receive,
        signal.SIGALRM: signals.hold_is_over,
    }
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield signals
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)
