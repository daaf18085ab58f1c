"""CISPO: clipped importance weights instead of clipped updates (arXiv 2506.13585)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, PositiveFloat
from torch import Tensor

from learner.objective_checks import own_objective_problems
from learner.objective_tokens import ObjectiveTokens
from learner.objectives import capped_weight_objective
from learner.plugin import LearnerPlugin
from learner.plugin_pairs import is_on_policy
from mgrpo.config import RunConfig
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigProblem


class CispoSettings(StrictConfig):
    """Keys of cispo."""

    cap: PositiveFloat = 5.0
    """Largest weight of a token, as the ratio itself: TRL's epsilon_high, and 1 + verl's."""
    floor: float = Field(default=0.0, ge=0, lt=1)
    """Smallest weight, as the ratio itself: 1 - verl's clip_ratio_low. 0: none, as in TRL."""


class Cispo(LearnerPlugin):
    """Multiplies each token's A log p by its ratio, which is capped and without gradient.

    No token loses its gradient, not even one whose ratio has left the range; the rare words that
    change a line of reasoning are such tokens (https://arxiv.org/abs/2506.13585).

    Formula:
        J = sg(clip(ρ, floor, cap)) A log p,   ρ = p / p_old,  sg: a constant for the gradient
    """

    Settings: ClassVar[type[StrictConfig]] = CispoSettings

    @classmethod
    def problems(
        cls, settings: Any, layers: frozenset[int], config: RunConfig
    ) -> list[ConfigProblem]:
        inert = ("clip_low", "clip_high", "dual_clip")
        problems = own_objective_problems("cispo", layers, config, inert=inert)
        if settings.cap < 1:
            problems.append(
                ConfigProblem(
                    "cap",
                    str(settings.cap),
                    "is the largest ratio itself, not how far it may be above 1.",
                    f"For a range up to 1 + {settings.cap:g} give {1 + settings.cap:g}.",
                )
            )
        return problems

    @classmethod
    def warnings(cls, settings: Any, layers: frozenset[int], config: RunConfig) -> list[str]:
        if not is_on_policy(config):
            return []
        return [
            "has the gradient of the clipped objective, GRPO's, with "
            "objective.updates_per_rollout: 1, where every ratio is 1."
        ]

    def policy_objective(self, tokens: ObjectiveTokens) -> Tensor:
        return capped_weight_objective(
            tokens.policy_logprobs,
            tokens.old_logprobs,
            tokens.advantages,
            cap=self.settings.cap,
            floor=self.settings.floor,
        )
