"""The runs of a folder: their state, and how far they have come."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mgrpo.config.outline import read_outline
from mgrpo.metrics.log import METRICS_FILE, read_evaluations, read_metrics
from mgrpo.records.json_object import JsonObject
from mgrpo.storage.policies import POLICY_DIR, early_end_of
from mgrpo.storage.run_directory import CONFIG_FILE
from mgrpo.storage.run_lock import WATCH_S, lock_file

RunState = Literal["running", "finished", "stopped", "started"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run of a folder."""

    name: str
    path: str
    state: RunState
    method: str
    num_done: int  # steps
    num_steps: int | None  # planned; None: unknown
    ended_early: str  # why it took fewer; "": it did not
    train_accuracy: float | None  # of first attempts, in the newest step
    heldout_before: float | None  # of first attempts
    heldout_now: float | None  # ... in the newest evaluation
    wall_s: float | None  # seconds of running
    age_s: float  # seconds since it last wrote


def state_of(run_dir: Path) -> RunState:
    """running: its lock's heartbeat is fresh; finished: its policy is saved; stopped: it has steps
    and can be resumed; started: it has none yet."""
    lock = lock_file(run_dir)
    if lock.exists() and time.time() - lock.stat().st_mtime < WATCH_S:
        return "running"
    if (run_dir / POLICY_DIR).is_dir():
        return "finished"
    metrics = run_dir / METRICS_FILE
    return "stopped" if metrics.exists() and metrics.stat().st_size else "started"


def runs_in(runs_dir: Path) -> list[RunSummary]:
    """The runs below a folder, the one that wrote last at the end."""
    folders = {
        file.parent for name in (METRICS_FILE, CONFIG_FILE) for file in runs_dir.glob(f"*/{name}")
    }
    return sorted(map(summary_of, folders), key=lambda run: -run.age_s)


def summary_of(run_dir: Path) -> RunSummary:
    metrics, evaluations = read_metrics(run_dir), read_evaluations(run_dir)
    config = read_config(run_dir)
    measured = [row for row in evaluations if row.get("acc")]
    before = next((row["acc"][0] for row in measured if row["label"] == "before"), None)
    later = [row["acc"][0] for row in measured if row["label"] != "before"]
    files = [file for file in run_dir.iterdir() if file.is_file()]
    newest_s = max((file.stat().st_mtime for file in files), default=run_dir.stat().st_mtime)
    last: JsonObject = metrics[-1] if metrics else {}
    end = early_end_of(run_dir)
    return RunSummary(
        name=run_dir.name,
        path=str(run_dir),
        state=state_of(run_dir),
        method=str(config.get("method", "")),
        num_done=int(last["step"]) + 1 if metrics else 0,
        num_steps=config.get("steps"),
        ended_early="" if end is None else end.reason,
        train_accuracy=last.get("layer1/accuracy"),
        heldout_before=before,
        heldout_now=later[-1] if later else None,
        wall_s=last.get("wall_s"),
        age_s=time.time() - newest_s,
    )


def read_config(run_dir: Path) -> JsonObject:
    """The run's recipe as written, which may be of an older version; {} if unreadable."""
    try:
        return read_outline((run_dir / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
