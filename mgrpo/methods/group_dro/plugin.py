"""Group DRO over domains, in an RL form of ours (https://arxiv.org/abs/1911.08731)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin
from learner.plugin_pairs import WEIGHS_HARD
from learner.robust_weights import exponentiated_weights, row_weights, worst_share_weights
from mgrpo.config.base import OnlyWith, StrictConfig, refuse


class GroupDroSettings(StrictConfig):
    """Keys of group_dro."""

    variant: Literal["exponential", "worst_share"] = "exponential"
    """exponential: weights grow with exp(rate * failure rate), step after step. worst_share: the
    worst domains that make up `share` of the data get all the weight (CVaR, the greedy variant)."""
    rate: Annotated[NonNegativeFloat, OnlyWith(variant="exponential")] = 0.01
    """Step size of exponential."""
    adjustment: Annotated[NonNegativeFloat, OnlyWith(variant="exponential")] = 0.0
    """With exponential, adjustment / sqrt(training problems of the domain) is added to its
    failure rate: small domains generalise worse. Needs domain_sizes."""
    share: Annotated[float, Field(gt=0, le=1), OnlyWith(variant="worst_share")] = 0.2
    """For worst_share."""
    floor: Annotated[float, Field(ge=0, le=1), OnlyWith(variant="worst_share")] = 0.1
    """For worst_share: least weight of a domain, relative to its frequency."""
    smoothing: Annotated[float, Field(gt=0, le=1), OnlyWith(variant="worst_share")] = 0.1
    """For worst_share: how much of a domain's running failure rate is this step's."""
    domain_sizes: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Training problems per domain, where known. Their frequencies; empty: of prompts seen."""
    start: Annotated[Literal["uniform", "frequency"], OnlyWith(variant="exponential")] = "uniform"
    """For exponential: the weights before the first step. frequency needs domain_sizes."""

    @model_validator(mode="after")
    def check_sizes(self) -> GroupDroSettings:
        uses = {"adjustment": self.adjustment > 0, "start": self.start == "frequency"}
        for key, is_used in uses.items():
            if is_used and not self.domain_sizes:
                why = "needs the number of training problems of every domain."
                refuse(key, getattr(self, key), why, "Give them in domain_sizes.")
        return self


class GroupDro(LearnerPlugin):
    """Weighs advantages so that the domains where the policy fails most count most.

    Rows are multiplied after normalisation by N q_g / (N_g sum of q present), whose mean is 1.
    Group z-scores amplify rare outcomes already, so prefer advantage: {scale_by_std: false}.
    The weights are updated once per call, the same on every rank, and are part of the checkpoint.

    Formula:
        L_g = 1 - pass rate of domain g;  q_g ← q_g exp(rate (L_g + adjustment / √n_g)), normalised
        worst_share: domains sorted by running L_g, worst first, share q up to `share` of the data
        w_i = N q_g / (N_g Σ_present q);  A ← w_i A

    Metrics:
        group_dro/weight/DOMAIN: q of a domain.
        group_dro/robust_failure_rate: Σ_g q_g L_g over the domains of the step.

    Reconstructed:
        Its form for reinforcement learning: failure rate (1 - pass rate) as the loss, since a
        policy-gradient loss has no difficulty in it; domains absent from a step keep their weight;
        a domain seen for the first time gets an equal share.
    """

    Settings: ClassVar[type[StrictConfig]] = GroupDroSettings
    overlaps: ClassVar[Mapping[str, str]] = dict.fromkeys(("agro", "lead"), WEIGHS_HARD)

    def __init__(self, settings: StrictConfig, layers: frozenset[int]) -> None:
        super().__init__(settings, layers)
        sizes = self.settings.domain_sizes
        self.domains: list[str] = sorted(sizes)
        known = [sizes[name] for name in self.domains]
        equal = [1.0] * len(known)
        start = known if self.settings.start == "frequency" else equal
        self.weights = normalised(torch.tensor(start, dtype=torch.float64))
        self.counts = torch.tensor(known, dtype=torch.float64)
        self.losses = torch.full((len(known),), math.nan, dtype=torch.float64)  # nan: not seen yet

    def measure(self, batch: StepBatch) -> dict[str, object]:
        """Take this step's failure rates into account: the one place where state changes."""
        here = batch.in_layers(self.layers) & batch.is_usable
        numbers = [self.number_of(one.domain) for one in batch.completions]
        groups = torch.tensor(numbers, dtype=torch.int64)[here]
        if len(groups) == 0:
            return {}
        counts = torch.bincount(groups, minlength=len(self.domains)).double()
        failed = (~batch.is_correct[here]).double()
        losses = torch.zeros_like(counts).index_add(0, groups, failed) / counts.clamp(min=1)
        is_present = counts > 0
        if not self.settings.domain_sizes:
            self.counts = self.counts + counts
        if self.settings.variant == "exponential":
            self.weights = exponentiated_weights(
                self.weights, losses + self.adjustments(), is_present, rate=self.settings.rate
            )
        else:
            self.smooth(losses, is_present)
            self.weights = worst_share_weights(
                normalised(self.counts),
                self.losses.nan_to_num(nan=0.0),
                share=self.settings.share,
                floor=self.settings.floor,
            )
        for name, weight in zip(self.domains, self.weights.tolist(), strict=True):
            batch.metrics[f"group_dro/weight/{name}"] = (weight, 1.0)
        present = self.weights[is_present]
        if float(present.sum()) > 0:
            robust = (present * losses[is_present]).sum() / present.sum()
            batch.metrics["group_dro/robust_failure_rate"] = (float(robust), 1.0)
        return {}

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        here = batch.in_layers(self.layers) & batch.is_usable
        if not here.any():
            return advantages
        groups = torch.tensor(
            [self.domains.index(one.domain) for one in batch.completions], dtype=torch.int64
        )
        if float(self.weights[groups[here]].sum()) == 0:  # worst_share with floor 0
            return torch.zeros_like(advantages)
        factors = torch.ones(len(groups), dtype=torch.float64)
        factors[here] = row_weights(self.weights, groups[here])
        return advantages * batch.spread(factors)

    def number_of(self, domain: str) -> int:
        """The domain's place; a new one gets an equal share of the weight."""
        if domain not in self.domains:
            size = len(self.domains)
            share = torch.tensor([1 / (size + 1)], dtype=torch.float64)
            self.domains.append(domain)
            self.weights = torch.cat([self.weights * size / (size + 1), share])
            self.counts = torch.cat([self.counts, torch.zeros(1, dtype=torch.float64)])
            self.losses = torch.cat([self.losses, torch.tensor([math.nan], dtype=torch.float64)])
        return self.domains.index(domain)

    def adjustments(self) -> Tensor | float:
        """[K] what is added to failure rates."""
        if self.settings.adjustment == 0:
            return 0.0
        return self.settings.adjustment / self.counts.clamp(min=1).sqrt()

    def smooth(self, losses: Tensor, is_present: Tensor) -> None:
        """Running failure rates; the first one of a domain is taken as it is."""
        kept = 1 - self.settings.smoothing
        moved = kept * self.losses + self.settings.smoothing * losses
        updated = torch.where(self.losses.isnan(), losses, moved)
        self.losses = torch.where(is_present, updated, self.losses)

    def state_dict(self) -> dict[str, object]:
        return {
            "domains": list(self.domains),
            "weights": self.weights,
            "counts": self.counts,
            "losses": self.losses,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.domains = list(state["domains"])
        self.weights, self.counts, self.losses = (
            state["weights"],
            state["counts"],
            state["losses"],
        )


def normalised(values: Tensor) -> Tensor:
    """The same values with sum 1; as they are where there are none."""
    return values / values.sum() if len(values) else values
