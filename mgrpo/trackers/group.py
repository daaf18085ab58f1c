"""All trackers of a run, opened together and given the same metrics."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType

from mgrpo.config import TrackerConfig
from mgrpo.errors import TrackerError
from mgrpo.trackers.background import BackgroundTracker
from mgrpo.trackers.completions import EVERY_STEPS, Table, table_of
from mgrpo.trackers.interface import RunFacts, Tracker
from mgrpo.types import Completion

FAILED_WRITES = "trackers/failed_writes"
PACKAGES = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
}
"""Tracker -> its package. The module of the same name in this folder opens it."""
DEADLINE_S = 60.0  # of a tracker that the recipe does not name


class Trackers:
    """Zero or more trackers, each in its own thread."""

    def __init__(self) -> None:
        self.members: list[BackgroundTracker] = []
        self.warn: Callable[[str], None] = print
        """Receives messages for the user; the loop sets its progress view here."""

    def add(
        self, name: str, opener: Callable[[], Tracker], deadline_s: float = DEADLINE_S
    ) -> BackgroundTracker:
        """One more tracker, which begins to open; `opener` makes it, in the tracker's thread."""
        member = BackgroundTracker(name, opener, deadline_s)
        self.members.append(member)
        return member

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Write to every tracker; values that are missing or not finite are left out."""
        finite = {
            name: value
            for name, value in values.items()
            if value is not None and math.isfinite(value)
        }
        self._give(step, finite)

    def write_completions(self, step: int, completions: Iterable[Completion]) -> None:
        """Show some completions of every tenth step, in the trackers that can."""
        if step % EVERY_STEPS == 0 and (table := table_of(completions)):
            self._give(step, table)

    def _give(self, step: int, values: Mapping[str, float] | Table) -> None:
        for member in self.members:
            member.write(step, values)
            if warning := member.new_warning():
                self.warn(warning)

    @property
    def num_missed(self) -> int:
        """Writes missed by any tracker since this process started."""
        return sum(member.num_missed for member in self.members)

    def close(self) -> None:
        """End all; reports those that missed writes."""
        members, self.members = self.members, []
        for member in members:
            if message := member.close():
                self.warn(message)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_trackers(configs: Sequence[TrackerConfig], facts: RunFacts) -> Trackers:
    """Start every tracker that the recipe names, side by side.

    Raises:
        TrackerError: one of them is not installed, or cannot be started. The others are closed.
    """
    trackers = Trackers()
    try:
        for config in configs:
            if problem := missing_package(config.use):
                raise TrackerError(problem)
        for config in configs:
            trackers.add(config.use, partial(opened, config, facts), config.deadline_s)
        for member in trackers.members:
            member.wait_until_open()
    except BaseException:
        trackers.warn = lambda message: None  # the error being raised is more important
        trackers.close()
        raise
    return trackers


def opened(config: TrackerConfig, facts: RunFacts) -> Tracker:
    """The tracker of a section; its library is imported here and no earlier."""
    module = importlib.import_module(f"mgrpo.trackers.{config.use}")
    tracker: Tracker = module.open_tracker(config, facts)
    return tracker


def missing_package(tracker: str) -> str:
    """Advice if a tracker's package is not installed; "" if it is."""
    package = PACKAGES[tracker]
    if importlib.util.find_spec(package) is not None:
        return ""
    return (
        f"output.trackers names {tracker}, and the package {package} is not installed here. "
        f"Install it: `make extras`, or `pip install 'mgrpo[{tracker}]'`; or remove it."
    )
