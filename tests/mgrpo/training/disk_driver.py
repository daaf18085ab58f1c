"""Trains light runs on disks that refuse checkpoints, or are slow.

    python -m tests.mgrpo.training.disk_driver FOLDER CASE...

A process of its own, which may mount (`tests.disk.own_mounts`) and has `tests/disk.c` loaded
(`preloaded`). Prints one JSON object: what was seen in each case.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster.remote import Counter
from learner.scripted import ScriptedLearner
from mgrpo.config import RunConfig
from mgrpo.errors import RunInterrupted
from mgrpo.metrics.log import read_metrics
from mgrpo.storage.checkpoints import CHECKPOINTS_DIR, fault_of
from mgrpo.training import checkpoints
from mgrpo.training.checkpoints import Finishing
from mgrpo.training.stop_signals import signals_as_errors
from tests.disk import is_slow, set_disk
from tests.mgrpo.training.light_run import LightRun

STEPS, EVERY = 8, 2
STATE_BYTES = 2**20
SLOW = 4096
"""Bytes a second: a state takes minutes, and so does its fsync."""
Action = Callable[[Path], None]


def mounted(options: str) -> Action:
    """A disk in memory, new or mounted again."""

    def mount(folder: Path) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        subprocess.run(command, check=True, timeout=60)

    return mount


def quota(num_bytes: int) -> Action:
    return lambda folder: set_disk(left_bytes=num_bytes)


def slow(folder: Path) -> None:
    set_disk(bytes_per_s=SLOW)


def mended(folder: Path) -> None:
    """As fast as ever, and what was late is there."""
    set_disk()
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join(60)


def signalled(folder: Path) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def slow_and_signalled(folder: Path) -> None:
    slow(folder)
    signalled(folder)


START, SAVING, SAVED, NEXT, LATER = "start", "saving", "saved", "next", "later"
MOUNTED: Mapping[str, Mapping[str, Action]] = {
    "read-only": {
        START: mounted("size=8m"),
        SAVED: mounted("remount,ro"),
        LATER: mounted("remount,rw"),
    },
    "full": {START: mounted("size=1536k"), LATER: mounted("remount,size=8m")},
}
PRELOADED: Mapping[str, Mapping[str, Action]] = {
    "quota": {SAVING: quota(STATE_BYTES // 2), LATER: mended},
    "slow": {SAVED: slow, LATER: mended},
    "slow to the end": {SAVED: slow},
    "a signal beside the steps": {SAVED: slow, NEXT: signalled},
    "a signal within a step": {SAVING: slow_and_signalled},
}
"""What happens to the disk: at the start; before and after the learner's state of the second
checkpoint is written; in the step after it; and in the step after the third one was due."""


@dataclass
class Seen:
    """Of one run."""

    said: str = ""
    steps: list[int] = field(default_factory=list)
    folders: list[list[str]] = field(default_factory=list)  # of checkpoints, before each update
    left: list[str] = field(default_factory=list)  # at the end
    faults: list[str] = field(default_factory=list)  # of those
    stopped_by: str = ""


class Learner(ScriptedLearner):
    """Has a state of some size, and does to the disk what a case says."""

    def __init__(self, folder: Path, case: Mapping[str, Action], seen: Seen) -> None:
        super().__init__()
        self.folder, self.case, self.seen = folder, case, seen

    def happens(self, moment: str, *, now: bool) -> None:
        if now and moment in self.case:
            self.case[moment](self.folder)

    def update(self, *args: Any, **kwargs: Any) -> Any:
        self.seen.folders.append(names_in(self.folder))
        self.happens(NEXT, now=self.policy_version == 2 * EVERY)
        self.happens(LATER, now=self.policy_version == 3 * EVERY)
        return super().update(*args, **kwargs)

    def save_states(self, directory: Path, policy_version: int, **kwargs: Any) -> bool:
        is_second = policy_version == 2 * EVERY
        self.happens(SAVING, now=is_second)
        is_saved = super().save_states(directory, policy_version, **kwargs)
        (directory / "weights").write_bytes(bytes(STATE_BYTES))
        self.happens(SAVED, now=is_second)
        return is_saved


def names_in(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def seen_in(case: Mapping[str, Action], folder: Path) -> Seen:
    """Train with the disk of a case."""
    seen, place = Seen(), folder / "run" / CHECKPOINTS_DIR
    place.mkdir(parents=True)
    set_disk()
    layer = {"name": "solve", "group_size": 4, "max_completion_tokens": 50}
    settings: dict[str, Any] = {
        "name": "small",
        "steps": STEPS,
        "prompts_per_step": 2,
        "model": {"path": "default"},
        "data": {"train": {"source": "jsonl", "path": "none.jsonl"}, "max_prompt_tokens": 300},
        "layers": [layer],
        "checkpoints": {
            "every_steps": EVERY,
            "keep": 2,
            "memory_copy_share": 0,
            "on_signal_s": 0.5,
        },
        "cluster": {"deadlines": {"update_s": 0.5}},
        "output": {"report": False},
    }
    run = LightRun(RunConfig.model_validate(settings), folder / "run")
    run.learner = learner = Learner(place, case, seen)
    learner.happens(START, now=True)
    with signals_as_errors() as run.signals:
        try:
            run.train()
        except RunInterrupted as stop:
            seen.stopped_by = str(stop)
    seen.said = " ".join(run.console.getvalue().split())
    seen.steps = [row["step"] for row in read_metrics(run.run_dir)]
    seen.left = names_in(place)
    seen.faults = [fault_of(place / name) for name in run.checkpoint_names]
    return seen


class PatientFinishing(Finishing):
    """Its deadlines are those of the settings where the disk is slow: a busy machine has others."""

    def wait(self, within_s: float, setting: str, progress: Counter | None) -> None:
        super().wait(within_s if is_slow() else 60, setting, progress)


if __name__ == "__main__":
    checkpoints.Finishing = PatientFinishing  # type: ignore[misc]
    cases = {name: {**MOUNTED, **PRELOADED}[name] for name in sys.argv[2:]}
    found = {
        name: asdict(seen_in(case, Path(sys.argv[1]) / name.replace(" ", "-")))
        for name, case in cases.items()
    }
    print(json.dumps(found))
