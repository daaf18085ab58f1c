"""The hooks of a plug-in that changes what is learned, in the order in which they are called.

    signals                 measured by the learner, because `requires` names them
    measure                 signals of the plug-in's own
    shape_rewards           [N] rewards, before selection and advantages
      ... selection, advantages and denominators of the layers ...
    transform_advantages    [M] advantages
    weigh_tokens            [M] factors on whole token losses, KL included
    weigh_entropy           [M] factors on token entropies, added to the loss

Within a hook, plug-ins work in the order of the recipe. Each hook is called for the whole step
(see `StepBatch` for [N] and [M]) and its result is used on the plug-in's own layers alone.
Hooks must be pure: every rank calls them and must get the same numbers.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from learner.columns import StepBatch
from mgrpo.plugin import Plugin

Signal = Literal["entropies", "policy_logprobs"]
"""What the learner can measure with a forward pass of its own, [M] each: the entropy of the
distribution that each token was sampled from, and the token's log-probability, both under the
weights before this update, at the sampling temperature, in nats."""


class LearnerPlugin(Plugin):
    """Base class; override what you need."""

    requires: ClassVar[frozenset[Signal]] = frozenset()
    """Signals that must stand in `batch.signals`. They cost a forward pass over the step."""

    def wanted_signals(self) -> frozenset[Signal]:
        """`requires`, or fewer where the settings make some of them unneeded."""
        return self.requires

    def start(self, device: torch.device) -> None:
        """Load what is needed for working; called once, before the first step."""

    def measure(self, batch: StepBatch) -> dict[str, Any]:
        """More signals by name: [N], [M], or a list of N tensors."""
        return {}

    def shape_rewards(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        """[N] -> [N]. `batch.rewards` are those of the checks, `rewards` shaped so far."""
        return rewards

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        """[M] -> [M]. They multiply the policy term, not the KL term."""
        return advantages

    def weigh_tokens(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        """[M] factors on each token's whole loss."""
        return torch.ones_like(advantages)

    def weigh_entropy(self, batch: StepBatch, advantages: Tensor, token_weights: Tensor) -> Tensor:
        """[M] factors c of an added loss: the sum of c times each token's entropy.

        Tokens that must carry no loss (`train_mask`) get 0, whatever is returned for them.

        Args:
            advantages: [M] as transformed.
            token_weights: [M] factors on each token loss, denominators included.
        """
        return torch.zeros_like(advantages)
