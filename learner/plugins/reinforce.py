"""REINFORCE without a ratio, as GPG, RAFT and RLOO use it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from learner.objective_checks import own_objective_problems
from learner.objective_tokens import ObjectiveTokens
from learner.objectives import reinforce
from learner.plugin import LearnerPlugin
from learner.plugin_pairs import is_on_policy
from mgrpo.config import RunConfig
from mgrpo.errors import ConfigProblem


class Reinforce(LearnerPlugin):
    """Maximises advantage times log-probability: no ratio to the old policy and no clipping.

    With one update per rollout its gradient is that of the clipped objective. In further updates
    nothing holds the policy back, and nothing corrects for what it has already learned.

    Formula:
        J = A log p
    """

    @classmethod
    def problems(
        cls, settings: Any, layers: frozenset[int], config: RunConfig
    ) -> list[ConfigProblem]:
        inert = ("clip_low", "clip_high", "dual_clip")
        return own_objective_problems("reinforce", layers, config, inert=inert)

    @classmethod
    def warnings(cls, settings: Any, layers: frozenset[int], config: RunConfig) -> list[str]:
        if is_on_policy(config):
            return []
        return [
            "nothing corrects for what the policy has moved since it sampled: without a ratio the "
            "updates after the first are off policy. Set objective.updates_per_rollout: 1."
        ]

    def policy_objective(self, tokens: ObjectiveTokens) -> Tensor:
        return reinforce(tokens.policy_logprobs, tokens.advantages)
