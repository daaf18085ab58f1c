"""The interface of a tracker, and the facts about a run that it receives."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mgrpo.errors import TrackerError
from mgrpo.trackers.completions import Table

RECORD_FILE = "trackers.json"
RECORDING = threading.Lock()  # the trackers open side by side, and share the file


class Tracker(Protocol):
    """Receives a run's metrics. Its exceptions are caught, counted and reported to the user."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record a step's metrics. `values` are finite. A resumed run repeats some steps."""

    def close(self) -> None:
        """Finish what is under way. Called once."""


@runtime_checkable
class CompletionsTracker(Tracker, Protocol):
    """A tracker that also shows completions."""

    def write_completions(self, step: int, table: Table) -> None:
        """Record some completions of a step."""


@dataclass(frozen=True)
class RunFacts:
    """Facts about a run for its trackers.

    Example:
        RunFacts(name="sums", run_dir=Path("runs/sums"), recipe={"steps": 60}, first_step=20)
    """

    name: str
    run_dir: Path
    recipe: Mapping[str, Any] = field(default_factory=dict)  # the resolved recipe, as in YAML
    first_step: int = 0  # above 0 in a resumed run

    def recorded_id(self, tracker: str) -> str | None:
        """This tracker's own id of the run from its first start; None if there is none."""
        found = self._records().get(tracker)
        return None if found is None else str(found)

    def record_id(self, tracker: str, run_id: str) -> None:
        """Save the tracker's id of the run, so that a resumed run continues its record."""
        path = self.run_dir / RECORD_FILE
        unfinished = path.with_suffix(".unfinished")
        with RECORDING:
            records = {**self._records(), tracker: run_id}
            unfinished.write_text(json.dumps(records), encoding="utf-8")
            unfinished.replace(path)

    def _records(self) -> dict[str, object]:
        path = self.run_dir / RECORD_FILE
        if not path.exists():
            return {}
        try:
            records: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrackerError(
                f"{path} cannot be read ({error}), so the trackers' records of this run cannot be "
                "found again. Delete it to begin new records."
            ) from error
        return records


def flat(tree: object, path: str = "") -> dict[str, object]:
    """The recipe's leaves by dotted path, for trackers whose parameters are a flat table."""
    if isinstance(tree, Mapping):
        inner = tree.items()
    elif isinstance(tree, list) and any(isinstance(item, Mapping) for item in tree):
        inner = {str(place): item for place, item in enumerate(tree)}.items()
    else:
        return {path: tree}
    leaves: dict[str, object] = {}
    for key, value in inner:
        leaves |= flat(value, f"{path}.{key}" if path else str(key))
    return leaves
