"""EDGE-GRPO's entropy-driven advantage (https://arxiv.org/abs/2507.21848)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin, Signal
from mgrpo.config.base import StrictConfig

SMALLEST_ENTROPY = 1e-6
"""Nats. A completion that the policy was certain of would otherwise divide by 0."""


class EntropyAdvantageSettings(StrictConfig):
    """Keys of entropy_advantage."""

    mask: bool = True
    """Average over a completion's own tokens. false, as in the authors' code: over the padded
    length of the step's longest completion."""
    pad_entropy: NonNegativeFloat = 0.0
    """What each padded place counts with, in nats, when mask is false. In the authors' code it is
    whatever the model says behind the end; here nothing is computed there."""
    detach: bool = True
    """false, as in the authors' code: the entropy's own gradient is in the loss, which lowers
    the entropy of what was good and raises that of what was bad."""
    clamp: tuple[float, float] | None = None
    """Bounds of the relative entropy, e.g. [0.1, 10]; null: none."""
    norm: Literal["group", "batch"] = "group"
    """Whose mean the entropy is divided by."""
    entropy_source: Literal["current", "rollout"] = "current"
    """current: entropies of the learner's distributions, at the cost of a forward pass. rollout:
    minus the log-probability of each sampled token, an estimate of the entropy from one draw."""


class EntropyAdvantage(LearnerPlugin):
    """Divides each advantage by the completion's entropy relative to its group's mean.

    What was right and certain gains more, what was wrong and certain loses more, and a hesitant
    mistake is forgiven. A group without variance stays at 0.
    """

    Settings: ClassVar[type[StrictConfig]] = EntropyAdvantageSettings
    requires: ClassVar[frozenset[Signal]] = frozenset({"entropies"})

    def wanted_signals(self) -> frozenset[Signal]:
        return self.requires if self.settings.entropy_source == "current" else frozenset()

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        relative = self.relative_entropies(batch, self.row_entropies(batch))
        return advantages / batch.spread(relative)

    def weigh_entropy(self, batch: StepBatch, advantages: Tensor, token_weights: Tensor) -> Tensor:
        """The gradient that the entropy in the divisor has of its own.

        The loss of row i is -sum_t w_t A_i m / P_i at ratio 1, so its derivative by P_i is
        sum_t w_t (A_i m / P_i) / P_i, and P_i is the mean of the row's token entropies. The
        group's mean m is a constant, as in the authors' code.
        """
        if self.settings.detach:
            return torch.zeros_like(advantages)
        entropies = self.row_entropies(batch)
        per_row = batch.row_sums(token_weights * advantages) / entropies
        return batch.spread(per_row / self.divisors(batch))

    def row_entropies(self, batch: StepBatch) -> Tensor:
        """[N] mean token entropies, nats."""
        if self.settings.entropy_source == "rollout":
            logprobs = [value for one in batch.completions for value in one.rollout_logprobs]
            tokens = -batch.rows(logprobs)
        else:
            tokens = batch.signals["entropies"]
        sums = batch.row_sums(tokens)
        if not self.settings.mask:
            longest = batch.lengths.max()
            sums = sums + self.settings.pad_entropy * (longest - batch.lengths)
        return (sums / self.divisors(batch)).clamp(min=SMALLEST_ENTROPY)

    def divisors(self, batch: StepBatch) -> Tensor:
        """[N] how many places each row's mean is taken over."""
        lengths = (
            batch.lengths if self.settings.mask else batch.lengths.max().expand_as(batch.lengths)
        )
        return lengths.clamp(min=1).double()

    def relative_entropies(self, batch: StepBatch, entropies: Tensor) -> Tensor:
        """[N] entropies over their group's (or the batch's) mean."""
        if self.settings.norm == "group":
            means = batch.group_means(entropies)
        else:
            here = batch.in_layers(self.layers) & batch.is_usable
            means = entropies[here].mean().expand_as(entropies)
        relative = entropies / means.clamp(min=SMALLEST_ENTROPY)
        return relative if self.settings.clamp is None else relative.clamp(*self.settings.clamp)
