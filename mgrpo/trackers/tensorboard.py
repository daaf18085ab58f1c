"""TensorBoard: event files in the run's tensorboard/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgrpo.config import TensorboardConfig
from mgrpo.trackers.interface import RunFacts

TENSORBOARD_DIR = "tensorboard"


class TensorboardTracker:
    """Scalars of each step, on disk as soon as they are written."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def open_tracker(config: TensorboardConfig, facts: RunFacts) -> TensorboardTracker:
    """A resumed run hides the interrupted run's later steps."""
    from torch.utils.tensorboard import SummaryWriter  # heavy, and wanted by few commands

    folder = str(facts.run_dir / TENSORBOARD_DIR)
    return TensorboardTracker(SummaryWriter(folder, purge_step=facts.first_step or None))
