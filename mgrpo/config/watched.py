"""Metrics that decide which policy is kept and when a run ends."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator

from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigFault, Faults

HELDOUT_ACCURACY = re.compile(r"heldout/layer(\d+)/accuracy")
"""Of an evaluation; all other metrics are those of a step, as in metrics.jsonl."""


class WatchedMetric(StrictConfig):
    """A metric of the run, and which way is better."""

    metric: str = Field(min_length=1)
    """heldout/layerN/accuracy, measured with every evaluation (`evaluation.every_steps`), or a
    metric of a step, as in metrics.jsonl. A step's metric is of the policy that sampled the step,
    one update older than the one that the step leaves."""
    mode: Literal["max", "min"] = "max"
    """max: more is better. min: less."""

    @field_validator("metric")
    @classmethod
    def check_heldout(cls, metric: str) -> str:
        if metric.startswith("heldout/") and not HELDOUT_ACCURACY.fullmatch(metric):
            raise ValueError(
                f"{metric} can't be watched: of the held-out metrics only heldout/layerN/accuracy."
            )
        return metric

    @property
    def heldout_layer(self) -> int | None:
        """The layer whose held-out accuracy it is, 1 for the first; None: a step's metric."""
        found = HELDOUT_ACCURACY.fullmatch(self.metric)
        return None if found is None else int(found[1])


class BestConfig(WatchedMetric):
    """What is kept of the step with the best value so far."""

    checkpoint: bool = False
    """Whether a whole checkpoint of that step is kept besides its policy, whatever `keep` says:
    three times the size of float32 weights and more."""


class EarlyStoppingConfig(WatchedMetric):
    """Ends the run when a metric no longer improves."""

    patience: PositiveInt = 5
    """Measurements in a row without improvement that end the run: evaluations for a held-out
    accuracy, steps for a step's metric."""
    min_delta: NonNegativeFloat = 0.0
    """A measurement improves if it is better than the best one by more than this."""


def heldout_faults(
    path: str, watched: WatchedMetric | None, num_layers: int, *, measured_every: int
) -> Faults:
    """What keeps a held-out accuracy from being measured.

    Args:
        measured_every: steps between evaluations; 0: there are none during the run.
    """
    if watched is None or watched.heldout_layer is None:
        return
    where, metric, layer = f"{path}.metric", watched.metric, watched.heldout_layer
    if not 1 <= layer <= num_layers:
        why = f"the chain has {num_layers} layer{'s' if num_layers > 1 else ''}."
        hint = f"Nearest valid value: heldout/layer{min(max(layer, 1), num_layers)}/accuracy"
        yield ConfigFault(where, metric, why, hint)
    if measured_every == 0:
        hint = "Set data.heldout, and evaluation.every_steps to the steps between measurements."
        yield ConfigFault(where, metric, "is not measured during the run.", hint)
