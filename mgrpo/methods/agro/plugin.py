"""AGRO: groups that an adversary finds, in an RL form of ours
(https://arxiv.org/abs/2212.00921)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin
from learner.plugin_pairs import WEIGHS_HARD
from learner.robust_weights import (
    exponentiated_weights,
    soft_group_losses,
    soft_prompt_weights,
    worst_share_weights,
)
from learner.row_groups import pass_rates, usable_groups
from mgrpo.config.base import OnlyWith, StrictConfig
from mgrpo.methods.agro.grouper import Grouper, divergence_from_uniform, hashed_counts, mean_entropy

ROW_WEIGHTS = "agro/row_weights"


class AgroSettings(StrictConfig):
    """Keys of agro."""

    num_groups: PositiveInt = 6
    """Soft groups. 1 leaves advantages as they are."""
    variant: Literal["worst_share", "exponential"] = "worst_share"
    """How groups are weighed, as in group_dro."""
    share: Annotated[float, Field(gt=0, le=1), OnlyWith(variant="worst_share")] = 0.2
    floor: Annotated[float, Field(ge=0, le=1), OnlyWith(variant="worst_share")] = 0.1
    rate: Annotated[NonNegativeFloat, OnlyWith(variant="exponential")] = 1.0
    """Step size of exponential."""
    loss_smoothing: Annotated[float, Field(gt=0, le=1), OnlyWith(variant="worst_share")] = 0.5
    """Weight of this step in a group's running failure rate."""
    count_smoothing: Annotated[float, Field(gt=0, le=1), OnlyWith(variant="worst_share")] = 0.05
    """Weight of this step in a group's running size."""
    num_features: PositiveInt = 64
    """Length of the vector that stands for a prompt."""
    learning_rate: PositiveFloat = 2e-5
    """Of the grouper."""
    adversary_steps: NonNegativeInt = 1
    """Steps of the grouper per update."""
    warmup_steps: NonNegativeInt = 10
    """Updates in which the grouper learns and advantages stay as they are; this number is ours."""
    window: PositiveInt = 2048
    """The grouper learns from the prompts seen last, so many."""
    entropy_weight: NonNegativeFloat = 0.1
    """Keeps prompts in several groups each; this amount is ours."""
    balance_weight: NonNegativeFloat = 1.0
    """Keeps groups of equal size; this amount is ours."""
    seed: int = 0


class Agro(LearnerPlugin):
    """Looks for kinds of prompts on which the policy fails, and weighs their advantages up.

    A small network sorts prompts into soft groups so that failure rates differ as much as they can,
    while rows are weighed by groups, worst first. The weight of a prompt multiplies the advantages
    of all its completions after normalisation and is 1 on average. Everything is part of the
    checkpoint.

    Formula:
        P(g|p) = softmax(network(features of prompt p)),  l_p = 1 - pass rate
        L_g = Σ_p P(g|p) l_p / Σ_p P(g|p);  q_g: the groups' weights, worst first
        w_p = B Σ_g q_g P(g|p) / Σ_p' P(g|p') over B prompts;  A ← w_p A
        adversary: -Σ_g q_g L_g - entropy_weight H(P) + balance_weight KL(mean P ‖ uniform) → min

    Metrics:
        agro/membership_entropy: mean entropy of a prompt's shares in the groups, nats.
        agro/imbalance: how far the groups are from equal sizes, as a KL divergence, nats.
        agro/robust_failure_rate: Σ_g q_g L_g, the failure rate as the groups' weights see it.

    Reconstructed:
        Its form for reinforcement learning: 1 - pass rate as the loss, advantages as what is
        weighed, and a hashed bag of prompt tokens as features, where the authors have a text
        encoder.
    """

    Settings: ClassVar[type[StrictConfig]] = AgroSettings
    overlaps: ClassVar[Mapping[str, str]] = dict.fromkeys(("group_dro", "lead"), WEIGHS_HARD)

    def __init__(self, settings: StrictConfig, layers: frozenset[int]) -> None:
        super().__init__(settings, layers)
        own = self.settings
        self.grouper = Grouper(
            own.num_features, own.num_groups, learning_rate=own.learning_rate, seed=own.seed
        )
        self.weights = torch.full((own.num_groups,), 1 / own.num_groups, dtype=torch.float64)
        self.losses: Tensor | None = None  # [K] running failure rates
        self.shares: Tensor | None = None  # [K] running sizes, sum 1
        self.window_features = torch.zeros(0, own.num_features, dtype=torch.float64)
        self.window_losses = torch.zeros(0, dtype=torch.float64)
        self.num_updates = 0

    def measure(self, batch: StepBatch) -> dict[str, object]:
        """One turn each of the groups' weights and of the adversary; the prompts' weights."""
        factors = torch.ones(len(batch.completions), dtype=torch.float64)
        groups = usable_groups(batch, self.layers)
        if not groups:
            return {ROW_WEIGHTS: factors}
        losses = 1 - pass_rates(batch)[[places[0] for places in groups]]
        features = torch.stack([self.features_of(batch, places[0]) for places in groups])
        with torch.no_grad():
            memberships = self.grouper.memberships(features)
        if self.num_updates >= self.settings.warmup_steps:
            self.weigh_groups(memberships, losses)
            found = soft_prompt_weights(self.weights, memberships)
            for places, weight in zip(groups, found, strict=True):
                factors[places] = weight
        self.teach_grouper(features, losses)
        self.num_updates += 1
        batch.metrics["agro/membership_entropy"] = (float(mean_entropy(memberships)), 1.0)
        batch.metrics["agro/imbalance"] = (float(divergence_from_uniform(memberships)), 1.0)
        robust = (self.weights * soft_group_losses(memberships, losses)).sum()
        batch.metrics["agro/robust_failure_rate"] = (float(robust), 1.0)
        return {ROW_WEIGHTS: factors}

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        return advantages * batch.spread(batch.measurements[ROW_WEIGHTS])

    def features_of(self, batch: StepBatch, place: int) -> Tensor:
        """[num_features] of a completion's prompt."""
        prompt = batch.completions[place].prompt_token_ids
        return hashed_counts(prompt.tolist(), self.settings.num_features)

    def weigh_groups(self, memberships: Tensor, losses: Tensor) -> None:
        """Move the groups' weights by this step's [B, K] memberships and [B] failure rates."""
        own = self.settings
        found = soft_group_losses(memberships, losses)
        self.losses = smoothed(self.losses, found, own.loss_smoothing)
        self.shares = smoothed(self.shares, memberships.mean(0), own.count_smoothing)
        if own.variant == "exponential":
            everyone = torch.ones_like(found, dtype=torch.bool)
            self.weights = exponentiated_weights(self.weights, found, everyone, rate=own.rate)
        else:
            self.weights = worst_share_weights(
                self.shares, self.losses, share=own.share, floor=own.floor
            )

    def teach_grouper(self, features: Tensor, losses: Tensor) -> None:
        """The adversary's turn, on the prompts seen last."""
        own = self.settings
        self.window_features = torch.cat([self.window_features, features])[-own.window :]
        self.window_losses = torch.cat([self.window_losses, losses])[-own.window :]
        for _ in range(own.adversary_steps):
            self.grouper.step(
                self.window_features,
                self.window_losses,
                self.weights,
                entropy_weight=own.entropy_weight,
                balance_weight=own.balance_weight,
            )

    def state_dict(self) -> dict[str, object]:
        return {
            "grouper": self.grouper.state_dict(),
            "weights": self.weights,
            "losses": self.losses,
            "shares": self.shares,
            "window_features": self.window_features,
            "window_losses": self.window_losses,
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.grouper.load_state_dict(state["grouper"])
        for name in ("weights", "losses", "shares", "window_features", "window_losses"):
            setattr(self, name, state[name])
        self.num_updates = int(state["num_updates"])


def smoothed(running: Tensor | None, values: Tensor, share: float) -> Tensor:
    """`share` of the new values, the rest of the running ones; the first are taken as they are."""
    return values if running is None else (1 - share) * running + share * values
