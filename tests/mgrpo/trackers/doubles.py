"""Trackers that keep, fail and hang, for tests of what stands around them."""

from __future__ import annotations

import threading
from collections.abc import Mapping


class KeepingTracker:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, Mapping[str, float]]] = []
        self.is_closed = False

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.append((step, values))

    def close(self) -> None:
        self.is_closed = True


class FailingTracker(KeepingTracker):
    """Refuses every write."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        raise ConnectionError(f"no route for step {step}")


class HangingTracker(KeepingTracker):
    """Does not come back from a write until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.released.wait(60)
        super().write(step, values)
