"""GSPO: one ratio for a whole completion (arXiv 2507.18071)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from learner.objective_checks import mean_per_completion_problems, own_objective_problems
from learner.objective_tokens import ObjectiveTokens
from learner.objectives import mean_over_trained, sequence_clipped_objective
from learner.plugin import LearnerPlugin
from learner.plugin_pairs import is_on_policy
from mgrpo.config import RunConfig
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigProblem


class GspoSettings(StrictConfig):
    """Keys of gspo."""

    clip_low: float = Field(default=3e-4, ge=0, lt=1)
    """The ratio of a whole completion moves far less than that of a token."""
    clip_high: float = Field(default=4e-4, ge=0)


class Gspo(LearnerPlugin):
    """Clips the geometric mean of a completion's token ratios instead of each ratio.

    A reward is given to the completion, so the completion is what is reweighted and held back
    (https://arxiv.org/abs/2507.18071). Needs aggregation: seq_mean. Advantages may differ between
    tokens (the paper's GSPO-token). With one update per rollout it is GRPO.

    Formula:
        J = min(s A, clip(s, 1 - clip_low, 1 + clip_high) A),   s = exp(mean_t log ρ_t)
    """

    Settings: ClassVar[type[StrictConfig]] = GspoSettings

    @classmethod
    def problems(
        cls, settings: Any, layers: frozenset[int], config: RunConfig
    ) -> list[ConfigProblem]:
        inert = ("clip_low", "clip_high", "dual_clip")
        return [
            *own_objective_problems("gspo", layers, config, inert=inert),
            *mean_per_completion_problems("gspo", config),
        ]

    @classmethod
    def warnings(cls, settings: Any, layers: frozenset[int], config: RunConfig) -> list[str]:
        if not is_on_policy(config):
            return []
        return ["is GRPO with objective.updates_per_rollout: 1, where every ratio is 1."]

    def policy_objective(self, tokens: ObjectiveTokens) -> Tensor:
        return sequence_clipped_objective(
            tokens.policy_logprobs,
            mean_over_trained(tokens, tokens.log_ratio),
            tokens.advantages,
            clip_low=self.settings.clip_low,
            clip_high=self.settings.clip_high,
        )
