"""One tracker in its own thread: if it fails or hangs, training continues."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mgrpo.errors import MgrpoError, TrackerError
from mgrpo.trackers.completions import Table
from mgrpo.trackers.interface import CompletionsTracker, Tracker

MAX_WAITING = 1000  # steps queued for a slow tracker before some are dropped

Row = tuple[int, Mapping[str, float] | Table]


@dataclass
class Failures:
    """Failures so far; shared between the two threads, each field written by one."""

    num_failed: int = 0  # by the tracker's thread: writes that raised
    num_dropped: int = 0  # by the loop's: writes dropped from a full queue
    reasons: list[str] = field(default_factory=list)  # by the tracker's


class BackgroundTracker:
    """Opens, feeds and closes a tracker from one thread."""

    def __init__(self, name: str, opener: Callable[[], Tracker], deadline_s: float) -> None:
        """Begin to open it.

        Args:
            name: the tracker's, in messages and in the recipe.
            opener: makes the tracker; called in its own thread, where all of its calls are made.
            deadline_s: of its start and its end each.
        """
        self.name, self.deadline_s = name, deadline_s
        self.failures = Failures()
        self.rows: queue.Queue[Row | None] = queue.Queue(MAX_WAITING)
        self.opened = threading.Event()
        self.open_error: BaseException | None = None
        self.busy_since: float | None = None
        self.has_warned = False
        self.thread = threading.Thread(
            target=self._work, args=(opener,), name=f"tracker-{name}", daemon=True
        )
        self.thread.start()

    def wait_until_open(self) -> None:
        """Return when it is ready.

        Raises:
            TrackerError: it cannot be opened, or not within its deadline.
        """
        if not self.opened.wait(self.deadline_s):
            raise TrackerError(
                f"The tracker {self.name} did not start within {self.deadline_s:g} s. Check that "
                f"its server is reachable. Raise deadline_s of {self.name} in output.trackers, set "
                "offline: true for it, or remove it."
            )
        error = self.open_error
        if isinstance(error, MgrpoError):
            raise error
        if error is not None:
            raise TrackerError(
                f"The tracker {self.name} cannot be started: {described(error)}. Fix the error "
                "above, set offline: true in output.trackers, or remove the tracker."
            ) from error

    def write(self, step: int, values: Mapping[str, float] | Table) -> None:
        """Queue a step's metrics or completions. Never blocks."""
        try:
            self.rows.put_nowait((step, values))
        except queue.Full:
            self.failures.num_dropped += 1

    @property
    def num_missed(self) -> int:
        """Number of rows that this tracker missed so far."""
        return self.failures.num_failed + self.failures.num_dropped

    def new_warning(self) -> str:
        """A message about this tracker's failure, the first time; "" otherwise."""
        if self.has_warned:
            return ""
        reason = ""
        if self.failures.reasons:
            reason = f"failed to record a step: {self.failures.reasons[0]}"
        elif self.busy_since and time.monotonic() - self.busy_since > self.deadline_s:
            reason = f"has been busy with one step for more than {self.deadline_s:g} s"
        if not reason:
            return ""
        self.has_warned = True
        return (
            f"The tracker {self.name} {reason}. Training continues, metrics.jsonl has every step, "
            "and missed writes are counted as trackers/failed_writes."
        )

    def close(self) -> str:
        """End it; returns a message about its failures, "" if there were none."""
        end = time.monotonic() + self.deadline_s
        with contextlib.suppress(queue.Full):  # the join below says so
            self.rows.put(None, timeout=self.deadline_s)
        self.thread.join(max(0.001, end - time.monotonic()))
        if self.thread.is_alive():
            return (
                f"The tracker {self.name} did not finish within {self.deadline_s:g} s; about "
                f"{self.rows.qsize()} steps may be missing from it. metrics.jsonl has all of them."
            )
        if self.failures.reasons:
            return (
                f"The tracker {self.name} missed {self.num_missed} writes; the last error: "
                f"{self.failures.reasons[-1]}. metrics.jsonl has every step."
            )
        return ""

    def _work(self, opener: Callable[[], Tracker]) -> None:
        try:
            tracker = opener()
        # A tracker's library may raise anything, also SystemExit, and nothing may escape.
        except BaseException as error:
            self.open_error = error
            return
        finally:
            self.opened.set()
        while (row := self.rows.get()) is not None:
            step, values = row
            if isinstance(values, Mapping):
                self._guard(tracker.write, step, values)
            elif isinstance(tracker, CompletionsTracker):
                self._guard(tracker.write_completions, step, values)
        self._guard(tracker.close)

    def _guard(self, call: Callable[..., None], *args: object) -> None:
        self.busy_since = time.monotonic()
        try:
            call(*args)
        except BaseException as error:
            self.failures.num_failed += 1
            self.failures.reasons[1:] = [described(error)]  # the first and the latest are kept
        finally:
            self.busy_since = None


def described(error: BaseException) -> str:
    """Kind and message of an error, on one line of limited length."""
    text = " ".join(str(error).split())[:300].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
