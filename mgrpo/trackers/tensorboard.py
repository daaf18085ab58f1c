"""TensorBoard: event files in the run's tensorboard/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgrpo.config import TensorboardConfig
from mgrpo.trackers.completions import Table, as_markdown
from mgrpo.trackers.interface import RunFacts, flat

TENSORBOARD_DIR = "tensorboard"


CHARTS = {
    "Learning": {
        "accuracy": ["Multiline", ["layer[0-9]+/accuracy$"]],
        "held-out accuracy": ["Multiline", ["heldout/layer[0-9]+/accuracy$"]],
        "reward": ["Multiline", ["layer[0-9]+/reward_mean$"]],
        "gradient": ["Multiline", ["learner/grad_norm$"]],
    }
}
"""Tab and charts of the page "Custom scalars"; the page "Scalars" is in the order of the names."""


class TensorboardTracker:
    """Scalars of each step and some completions, on disk as soon as they are written."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def write_completions(self, step: int, table: Table) -> None:
        self.writer.add_text("completions", as_markdown(table), step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def open_tracker(config: TensorboardConfig, facts: RunFacts) -> TensorboardTracker:
    """A resumed run hides the interrupted run's later steps. The recipe is on the page "Text"."""
    from torch.utils.tensorboard import SummaryWriter  # heavy, and wanted by few commands

    folder = str(facts.run_dir / TENSORBOARD_DIR)
    writer = SummaryWriter(folder, purge_step=facts.first_step or None)
    writer.add_custom_scalars(CHARTS)
    recipe = "".join(f"    {key}: {value}\n" for key, value in flat(facts.recipe).items())
    writer.add_text("recipe", recipe, facts.first_step)
    return TensorboardTracker(writer)
