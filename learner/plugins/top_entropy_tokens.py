"""Training on the tokens of highest entropy (arXiv 2506.01939)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin, Measurement
from mgrpo.config.base import StrictConfig


class TopEntropySettings(StrictConfig):
    """Keys of top_entropy_tokens."""

    share: float = Field(default=0.2, gt=0, le=1)
    """Of the step's trained tokens."""


class TopEntropyTokens(LearnerPlugin):
    """Gives the policy gradient to the tokens of highest entropy alone.

    Few tokens decide where a line of reasoning goes, and these are the ones; the rest follow
    (https://arxiv.org/abs/2506.01939). The denominators still count all tokens, and the KL term is
    on all of them.

    Formula:
        A_t ← A_t where H_t is among the highest `share` of the step's trained tokens, 0 elsewhere

    Metrics:
        top_entropy/threshold: lowest entropy that trains, nats.
    """

    Settings: ClassVar[type[StrictConfig]] = TopEntropySettings
    requires: ClassVar[frozenset[Measurement]] = frozenset({"entropies"})

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        here = batch.spread(batch.in_layers(self.layers) & batch.is_usable) & batch.is_trained
        entropies = batch.measurements["entropies"]
        known = batch.gather_tokens(entropies)[batch.gather_tokens(here)]
        if not len(known):
            return advantages
        threshold = quantile(known, 1 - self.settings.share)
        batch.metrics["top_entropy/threshold"] = (threshold, 1.0)
        return torch.where(entropies >= threshold, advantages, 0.0)


def quantile(values: Tensor, level: float) -> float:
    """Linear between the two nearest, like torch.quantile, which refuses 16 million values."""
    ordered = values.sort().values
    place = level * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))
