"""How far a step's sampling and its update run side by side."""

from __future__ import annotations

from typing import Literal

from mgrpo.config.base import StrictConfig
from mgrpo.config.cluster import ClusterConfig
from mgrpo.config.learner import ObjectiveConfig
from mgrpo.errors import ConfigProblem


class PipelineConfig(StrictConfig):
    """Sampling and learning side by side."""

    max_staleness_steps: Literal["auto", 0, 1] | None = "auto"
    """Null: a step is sampled whole, then trained on. 0: the learner trains on problems that are
    done while others are still sampled; weights do not change before all are in, so the update is
    the same. 1: the next step is sampled while this one trains, by the policy before this update;
    the ratio is against the log-probabilities recorded while sampling. auto: 0 where engines and
    learner have different GPUs and the recipe's parts allow it, as `mgrpo plan` says, else null."""

    @property
    def samples_ahead(self) -> bool:
        """Whether steps train on completions of an older policy."""
        return self.max_staleness_steps == 1

    def streams_on(self, device: str, cluster: ClusterConfig) -> bool:
        """Whether trees are to train while others are sampled, if the recipe's parts allow it."""
        if self.max_staleness_steps == "auto":
            return device == "cuda" and not cluster.takes_turns
        return self.max_staleness_steps == 0


def ahead_problems(pipeline: PipelineConfig, objective: ObjectiveConfig) -> list[ConfigProblem]:
    """What cannot be sampled while the step before it trains."""
    if not pipeline.samples_ahead:
        return []
    order = objective.update_order.type
    if order == "joint":
        return []
    path, hint = "pipeline.max_staleness_steps", "Use update_order: joint."
    why = f"with objective.update_order: {order} one layer trains at a time."
    return [ConfigProblem(path, "1", why, hint)]
