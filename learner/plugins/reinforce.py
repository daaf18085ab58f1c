"""REINFORCE without a ratio, as GPG, RAFT and RLOO use it."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from learner.objective_tokens import ObjectiveTokens
from learner.objectives import reinforce
from learner.plugin import PolicyLoss


class Reinforce(PolicyLoss):
    """Maximises advantage times log-probability: no ratio to the old policy and no clipping.

    With one update per rollout its gradient is that of the clipped objective. In further updates
    nothing holds the policy back, and nothing corrects for what it has already learned.

    Formula:
        J = A log p
    """

    off_policy: ClassVar[str] = (
        "nothing corrects for what the policy has moved since it sampled: without a ratio the "
        "updates after the first are off policy"
    )

    by_tree = True

    def policy_objective(self, tokens: ObjectiveTokens) -> Tensor:
        return reinforce(tokens.policy_logprobs, tokens.advantages)
