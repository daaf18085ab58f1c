"""Weights & Biases, online or into files that `wandb sync` sends later."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from mgrpo.config import WandbConfig
from mgrpo.trackers.completions import COLUMNS, Table
from mgrpo.trackers.interface import RunFacts

SHARE_FOR_UPLOAD = 0.8  # of the deadline: W&B stops first, and reports unsent data


class WandbTracker:
    """Charts over our own `step`.

    W&B's step can only rise and drops what comes for an earlier one, so a resumed run could not
    repeat the steps after its checkpoint.
    """

    def __init__(self, run: Any) -> None:
        self.run = run
        run.define_metric("step")
        run.define_metric("*", step_metric="step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({"step": step, **values})

    def write_completions(self, step: int, table: Table) -> None:
        import wandb

        shown = wandb.Table(columns=list(COLUMNS), data=[list(row) for row in table])
        self.run.log({"step": step, "completions": shown})

    def close(self) -> None:
        self.run.finish()


def open_tracker(config: WandbConfig, facts: RunFacts) -> WandbTracker:
    """A new run, or the one that this run's directory started with."""
    import wandb

    run_id = facts.recorded_id("wandb")
    if run_id is None:
        run_id = secrets.token_hex(4)
        facts.record_id("wandb", run_id)
    settings = wandb.Settings(
        init_timeout=config.deadline_s,
        finish_timeout=config.deadline_s * SHARE_FOR_UPLOAD,
        finish_timeout_raises=True,
        console="off",  # do not send the progress view and the actors' logs to W&B
        silent=True,
    )
    run = wandb.init(
        project=config.project,
        entity=config.entity,
        group=config.group,
        tags=config.tags,
        name=facts.name,
        id=run_id,
        resume="allow",
        reinit="create_new",
        config=dict(facts.recipe),
        dir=str(facts.run_dir),
        mode="offline" if config.offline else None,  # None: as WANDB_MODE says
        settings=settings,
    )
    return WandbTracker(run)
