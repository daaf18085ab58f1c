"""GMPO: the geometric mean of clipped token ratios (arXiv 2507.20673)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import PositiveFloat
from torch import Tensor

from learner.objective_checks import mean_per_completion_problems, own_objective_problems
from learner.objective_tokens import ObjectiveTokens
from learner.objectives import geometric_mean_objective, mean_over_trained, one_sided_log_clip
from learner.plugin import LearnerPlugin
from learner.plugin_pairs import is_on_policy
from mgrpo.config import RunConfig
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigProblem


class GmpoSettings(StrictConfig):
    """Keys of gmpo."""

    clip_low: PositiveFloat = 0.4
    """How far a token's log-ratio may fall where the advantage is negative, in nats."""
    clip_high: PositiveFloat = 0.4
    """How far it may rise where the advantage is positive, in nats."""


class Gmpo(LearnerPlugin):
    """Multiplies a completion's advantage by the geometric mean of its clipped token ratios.

    Less moved by single extreme tokens than the arithmetic mean, so the clip range can be wide,
    which leaves room to explore (https://arxiv.org/abs/2507.20673). Needs aggregation: seq_mean.

    Formula:
        J = A exp(mean_t l̃_t),   l_t = log ρ_t
        l̃_t = min(l_t, clip_high) where A > 0,  max(l_t, -clip_low) where A < 0
    """

    Settings: ClassVar[type[StrictConfig]] = GmpoSettings

    @classmethod
    def problems(
        cls, settings: Any, layers: frozenset[int], config: RunConfig
    ) -> list[ConfigProblem]:
        inert = ("clip_low", "clip_high", "dual_clip")
        return [
            *own_objective_problems("gmpo", layers, config, inert=inert),
            *mean_per_completion_problems("gmpo", config),
        ]

    @classmethod
    def warnings(cls, settings: Any, layers: frozenset[int], config: RunConfig) -> list[str]:
        if not is_on_policy(config):
            return []
        return ["is GRPO with objective.updates_per_rollout: 1, where every ratio is 1."]

    def policy_objective(self, tokens: ObjectiveTokens) -> Tensor:
        log_ratios = one_sided_log_clip(
            tokens.log_ratio,
            tokens.advantages,
            clip_low=self.settings.clip_low,
            clip_high=self.settings.clip_high,
        )
        return geometric_mean_objective(
            log_ratios, mean_over_trained(tokens, log_ratios), tokens.advantages
        )
