"""EDGE-GRPO's entropy-driven advantage (https://arxiv.org/abs/2507.21848)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, model_validator
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin, Measurement
from mgrpo.config.base import OnlyWith, StrictConfig, refuse

SMALLEST_ENTROPY = 1e-6
"""Nats. A completion that the policy was certain of would otherwise divide by 0."""


class EntropyAdvantageSettings(StrictConfig):
    """Keys of entropy_advantage."""

    mask: bool = True
    """Average over a completion's own tokens. false, as in the authors' code: over the padded
    length of the step's longest completion."""
    pad_entropy: Annotated[NonNegativeFloat, OnlyWith(mask=False)] = 0.0
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
    minus the log-probability of each sampled token, an estimate of the entropy from one draw.
    There is none of a completion without a sampled token; its advantage stays as it is."""

    @model_validator(mode="after")
    def check_bounds(self) -> EntropyAdvantageSettings:
        if self.clamp is not None and not 0 <= self.clamp[0] < self.clamp[1]:
            refuse("clamp", list(self.clamp), "must be [lowest, highest], 0 or more.")
        if not self.detach and self.entropy_source == "rollout":
            why = "recorded log-probabilities have no gradient."
            refuse("detach", "false", why, "Use entropy_source: current, or detach: true.")
        return self


class EntropyAdvantage(LearnerPlugin):
    """Divides each advantage by the completion's entropy relative to its group's mean.

    What was right and certain gains more, what was wrong and certain loses more, and a hesitant
    mistake is forgiven. A group without variance stays at 0.

    Formula:
        A_i ← A_i / P_i,   P_i = H_i / mean_group H,   H_i: mean token entropy of completion i
    """

    Settings: ClassVar[type[StrictConfig]] = EntropyAdvantageSettings
    requires: ClassVar[frozenset[Measurement]] = frozenset({"entropies"})

    def wanted_measurements(self) -> frozenset[Measurement]:
        return self.requires if self.settings.entropy_source == "current" else frozenset()

    def works_by_tree(self) -> bool:
        return self.settings.norm == "group" and self.settings.mask

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        relative = self.relative_entropies(batch, self.row_entropies(batch))
        return advantages / batch.spread(relative)

    def weigh_entropy(self, batch: StepBatch, advantages: Tensor, token_weights: Tensor) -> Tensor:
        """The gradient that the entropy in the divisor has of its own.

        The loss of row i is -sum_t w_t A_i m / P_i at ratio 1, so its derivative by P_i is
        sum_t w_t (A_i m / P_i) / P_i, and P_i is the mean of the row's token entropies. The
        group's mean m is a constant, as in the authors' code; so is an entropy at a bound.
        """
        if self.settings.detach:
            return torch.zeros_like(advantages)
        entropies = self.row_entropies(batch)
        per_row = batch.row_sums(token_weights * advantages) / entropies / self.divisors(batch)
        return batch.spread(torch.where(self.is_within_bounds(batch, entropies), per_row, 0.0))

    def row_entropies(self, batch: StepBatch) -> Tensor:
        """[N] mean token entropies, nats."""
        if self.settings.entropy_source == "rollout":
            tokens = torch.where(batch.is_sampled, -batch.rollout_logprobs, 0.0)
        else:
            tokens = batch.measurements["entropies"]
        sums = batch.row_sums(tokens)
        if not self.settings.mask:
            longest = batch.lengths.max()
            sums = sums + self.settings.pad_entropy * (longest - batch.lengths)
        return (sums / self.divisors(batch)).clamp(min=SMALLEST_ENTROPY)

    def divisors(self, batch: StepBatch) -> Tensor:
        """[N] how many places each row's mean is taken over."""
        if self.settings.mask:
            return self.num_known(batch).clamp(min=1)
        return batch.lengths.max().clamp(min=1).double().expand(len(batch.lengths))

    def num_known(self, batch: StepBatch) -> Tensor:
        """[N] how many of a row's tokens have an entropy, or an estimate of one."""
        is_known = torch.ones_like(batch.is_sampled)
        if self.settings.entropy_source == "rollout":
            is_known = batch.is_sampled
        return batch.row_sums(is_known.double())

    def relative_entropies(self, batch: StepBatch, entropies: Tensor) -> Tensor:
        """[N] entropies over their group's (or the batch's) mean, within the bounds."""
        relative = self.unbounded_entropies(batch, entropies)
        return relative if self.settings.clamp is None else relative.clamp(*self.settings.clamp)

    def unbounded_entropies(self, batch: StepBatch, entropies: Tensor) -> Tensor:
        """[N] entropies over their group's (or the batch's) mean; 1 where nothing is known."""
        is_known = self.num_known(batch) > 0
        if self.settings.norm == "group":
            means = batch.group_means(entropies, is_known)
        else:
            here = batch.in_layers(self.layers) & batch.is_usable & is_known
            means = entropies[here].mean().expand_as(entropies)
        return torch.where(is_known, entropies / means.clamp(min=SMALLEST_ENTROPY), 1.0)

    def is_within_bounds(self, batch: StepBatch, entropies: Tensor) -> Tensor:
        """[N] bool: a small change of the row's entropy would change its advantage."""
        is_within = entropies > SMALLEST_ENTROPY
        if self.settings.clamp is None:
            return is_within
        low, high = self.settings.clamp
        relative = self.unbounded_entropies(batch, entropies)
        return is_within & (low <= relative) & (relative <= high)
