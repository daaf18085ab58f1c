"""A metric of a run as it was measured so far, and what its course decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mgrpo.config.watched import EarlyStoppingConfig, WatchedMetric
from mgrpo.metrics.log import read_evaluations, read_metrics
from mgrpo.metrics.rows import Row
from mgrpo.report.curves import comparable

BEFORE = "before"


@dataclass(frozen=True, slots=True)
class Measurement:
    """Of the policy after so many steps."""

    num_steps: int
    value: float


class Watched:
    """The measurements of one metric, oldest first.

    A resumed run reads those of its finished steps from its files, as alarms do. Held-out
    accuracies are over the guidance phrases that all evaluations have, so the one after training,
    which has all phrases, is compared with those before on equal terms. The one before training
    does not count.

    Args:
        config: which metric.
        run_dir: whose files have the steps so far.
        num_steps: that are done.
    """

    def __init__(self, config: WatchedMetric, run_dir: Path, num_steps: int) -> None:
        self.config = config
        self.steps: list[Measurement] = []
        self.evaluations: list[Row] = []
        if num_steps == 0:
            return
        for row in read_metrics(run_dir):
            if row["step"] < num_steps:
                self.add_step(row["step"] + 1, row)
        for row in read_evaluations(run_dir):
            if row["step"] <= num_steps:
                self.add_evaluation(row)

    def add_step(self, num_steps: int, values: Mapping[str, float | None]) -> None:
        value = values.get(self.config.metric)
        if value is not None and value == value:  # NaN differs from itself
            self.steps.append(Measurement(num_steps, value))

    def add_evaluation(self, row: Row) -> None:
        """
        Args:
            row: a line of evaluation.jsonl.
        """
        if row["label"] != BEFORE:
            self.evaluations.append(row)

    @property
    def measured(self) -> list[Measurement]:
        layer = self.config.heldout_layer
        if layer is None:
            return self.steps
        values = [acc[layer - 1] for acc in comparable(self.evaluations)]
        return [
            Measurement(row["step"], value)
            for row, value in zip(self.evaluations, values, strict=True)
            if value is not None
        ]

    def newest_after(self, num_steps: int) -> float | None:
        """The newest measurement if it is of the policy after this step; None: it is older."""
        measured = self.measured
        return measured[-1].value if measured and measured[-1].num_steps == num_steps else None


def improves(value: float, best: float, mode: Literal["max", "min"], min_delta: float = 0) -> bool:
    """Whether a value is better than the best one by more than `min_delta`."""
    return value - best > min_delta if mode == "max" else best - value > min_delta


def why_stop(measured: Sequence[Measurement], config: EarlyStoppingConfig) -> str:
    """Why a run ends after these measurements; "": it goes on."""
    best, num_since = None, 0
    for one in measured:
        if best is None or improves(one.value, best.value, config.mode, config.min_delta):
            best, num_since = one, 0
        else:
            num_since += 1
    if best is None or num_since < config.patience:
        return ""
    by = f" by more than {config.min_delta:g}" if config.min_delta else ""
    return (
        f"{config.metric} has not improved{by} in {num_since} "
        f"measurement{'s' if num_since > 1 else ''}: {best.value:.4g} after step {best.num_steps}, "
        f"{measured[-1].value:.4g} after step {measured[-1].num_steps}"
    )
