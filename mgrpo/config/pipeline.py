"""How far a step's sampling and its update run side by side."""

from __future__ import annotations

from typing import Literal

from mgrpo.config.base import StrictConfig
from mgrpo.config.cluster import ClusterConfig


class PipelineConfig(StrictConfig):
    """Sampling and learning side by side."""

    max_staleness_steps: Literal["auto", 0] | None = "auto"
    """0: the learner trains on problems that are done while others are still sampled; weights do
    not change before all are in, so the update is the same. Null: it waits for the whole step.
    auto: 0 where engines and learner have different GPUs and the recipe's parts allow it, as
    `mgrpo plan` says, else null."""

    def streams_on(self, device: str, cluster: ClusterConfig) -> bool:
        """Whether trees are to train while others are sampled, if the recipe's parts allow it."""
        if self.max_staleness_steps == "auto":
            return device == "cuda" and not cluster.takes_turns
        return self.max_staleness_steps == 0
