"""The log of engine state changes: a run's engines.jsonl."""

from __future__ import annotations

import json
import time
from pathlib import Path

from cluster.fleet.engine_process import StateChange
from cluster.fleet.health import EngineState
from mgrpo.records.json_object import JsonObject

ENGINES_FILE = "engines.jsonl"


class EngineLog:
    """Appends every change of an engine's state, with the time, and reports important ones.

    A line: {"time": 1763715600.12, "engine": "layer1-engine-0", "from": "healthy",
    "to": "dead", "why": "...", "node": "10.0.0.7"}; time in seconds since 1970, from null for an
    engine that was just requested, node "" if it is not placed.
    """

    def __init__(self, path: Path | None) -> None:
        """
        Args:
            path: None writes nothing.
        """
        self.path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, change: StateChange) -> None:
        if self.path is None:
            return
        row = {
            "time": round(time.time(), 3),
            "engine": change.engine,
            "from": change.before,
            "to": change.now,
            "why": change.why,
            "node": change.node,
        }
        with self.path.open("a", encoding="utf-8", buffering=1) as file:
            file.write(json.dumps(row) + "\n")


def read_engine_log(run_dir: Path) -> list[JsonObject]:
    """The changes of a run, oldest first; [] for a run without a log."""
    path = run_dir / ENGINES_FILE
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def sentence(change: StateChange) -> str | None:
    """The change in words, if a user should see it; else None."""
    match change.now:
        case EngineState.SUSPECT:
            return f"{change.engine} gets no work for now: {change.why}"
        case EngineState.DEAD:
            return f"{change.engine} is lost: {change.why}"
        case EngineState.RESTARTING:
            return f"{change.engine} is {change.why}"
        case EngineState.GONE if change.before is EngineState.DEAD:
            return f"{change.engine} is abandoned: {change.why}"
        case EngineState.GONE:
            return f"{change.engine} is released: {change.why}"
        case EngineState.HEALTHY:
            return f"{change.engine} is ready: {change.why}"
        case EngineState.STARTING:
            return f"{change.engine} is {change.why}"
        case _:
            return None
