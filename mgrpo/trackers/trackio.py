"""trackio: a database on this machine, shown by `trackio show`, or a Hugging Face Space."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any

from mgrpo.config import TrackioConfig
from mgrpo.trackers.completions import COLUMNS, Table
from mgrpo.trackers.interface import RunFacts

OFFLINE_DIR = "trackio"


class TrackioTracker:
    """One trackio run. trackio catches most of its own errors and only warns."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def write_completions(self, step: int, table: Table) -> None:
        import pandas
        import trackio

        frame = pandas.DataFrame(table, columns=list(COLUMNS))
        self.run.log({"completions": trackio.Table(dataframe=frame)}, step=step)

    def close(self) -> None:
        self.run.finish()


def open_tracker(config: TrackioConfig, facts: RunFacts) -> TrackioTracker:
    """A new run, or the one that this run's directory started with.

    trackio finds a run only by its name, so the name gets a unique part.
    """
    if config.offline:
        # Read when trackio is first imported.
        os.environ["TRACKIO_DIR"] = str((facts.run_dir / OFFLINE_DIR).resolve())
        for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
            os.environ.pop(name, None)
    import trackio

    recorded = facts.recorded_id("trackio")
    name = recorded or f"{facts.name}-{secrets.token_hex(3)}"
    run = trackio.init(
        project=config.project,
        name=name,
        group=config.group,
        space_id=None if config.offline else config.space_id,
        config=dict(facts.recipe),
        resume="never" if recorded is None else "allow",
        embed=False,
        auto_log_cpu=False,
        auto_log_gpu=False,
    )
    facts.record_id("trackio", name)
    return TrackioTracker(run)
