"""AGRO: groups that an adversary finds, in an RL form of ours
(https://arxiv.org/abs/2212.00921)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin, Measurement
from learner.plugin_pairs import WEIGHS_HARD
from learner.robust_weights import (
    exponentiated_weights,
    soft_group_losses,
    soft_prompt_weights,
    worst_share_weights,
)
from learner.row_groups import pass_rates, usable_groups
from mgrpo.config.base import OnlyWith, StrictConfig
from mgrpo.methods.agro.grouper import (
    Grouper,
    divergence_from_uniform,
    hashed_counts,
    mean_entropy,
    standardised,
)

ROW_WEIGHTS = "agro/row_weights"


class AgroSettings(StrictConfig):
    """Keys of agro."""

    num_groups: PositiveInt = 6
    """Soft groups. 1 leaves advantages as they are."""
    variant: Literal["worst_share", "exponential"] = "worst_share"
    """How groups are weighed, as in group_dro."""
    share: Annotated[float, Field(gt=0, le=1), OnlyWith(variant="worst_share")] = 0.2
    """The worst groups that make up this share of the prompts get the weight above the floor."""
    floor: Annotated[float, Field(ge=0, le=1), OnlyWith(variant="worst_share")] = 0.1
    """Least weight of a group, relative to its frequency."""
    rate: Annotated[NonNegativeFloat, OnlyWith(variant="exponential")] = 1.0
    """Step size of exponential."""
    loss_smoothing: Annotated[float, Field(gt=0, le=1), OnlyWith(variant="worst_share")] = 0.5
    """Weight of this step in a group's running failure rate."""
    count_smoothing: Annotated[float, Field(gt=0, le=1), OnlyWith(variant="worst_share")] = 0.05
    """Weight of this step in a group's running size."""
    features: Literal["hidden_states", "tokens"] = "hidden_states"
    """What stands for a prompt: hidden_states, the policy's last layer at the prompt's end, for one
    forward pass over the prompts; tokens, a hashed count of its tokens, for none."""
    num_features: Annotated[PositiveInt, OnlyWith(features="tokens")] = 64
    """Length of the vector of tokens."""
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
    """Of the grouper's first weights."""


class Agro(LearnerPlugin):
    """Looks for kinds of prompts on which the policy fails, and weighs their advantages up.

    A small network sorts prompts into soft groups so that failure rates differ as much as they can,
    while rows are weighed by groups, worst first. The weight of a prompt multiplies the advantages
    of all its completions after normalisation and is 1 on average. Everything is part of the
    checkpoint.

    Formula:
        P(g|p) = softmax(network(x_p)),  l_p = 1 - pass rate
        x_p: hidden states, less their mean and over their root mean square; or tokens, counted
        L_g = Σ_p P(g|p) l_p / Σ_p P(g|p);  q_g: the groups' weights, worst first
        w_p = B Σ_g q_g P(g|p) / Σ_p' P(g|p') over B prompts;  A ← w_p A
        adversary: -Σ_g q_g L_g - entropy_weight H(P) + balance_weight KL(mean P ‖ uniform) → min

    Metrics:
        agro/membership_entropy: mean entropy of a prompt's shares in the groups, nats.
        agro/imbalance: how far the groups are from equal sizes, as a KL divergence, nats.
        agro/robust_failure_rate: Σ_g q_g L_g, the failure rate as the groups' weights see it.

    Reconstructed:
        Its form for reinforcement learning: 1 - pass rate as the loss, advantages as what is
        weighed, and as features the policy's own hidden states, less their mean over the window
        and over their spread, where the authors have a frozen text encoder.
    """

    requires: ClassVar[frozenset[Measurement]] = frozenset({"hidden_prompt"})
    Settings: ClassVar[type[StrictConfig]] = AgroSettings
    overlaps: ClassVar[Mapping[str, str]] = dict.fromkeys(("group_dro", "lead"), WEIGHS_HARD)

    def __init__(self, settings: StrictConfig, layers: frozenset[int]) -> None:
        super().__init__(settings, layers)
        own = self.settings
        self.grouper: Grouper | None = None  # made when the length of features is known
        self.weights = torch.full((own.num_groups,), 1 / own.num_groups, dtype=torch.float64)
        self.losses: Tensor | None = None  # [K] running failure rates
        self.shares: Tensor | None = None  # [K] running sizes, sum 1
        self.window_features: Tensor | None = None  # [at most window, D]
        self.window_losses = torch.zeros(0, dtype=torch.float64)
        self.num_updates = 0

    def wanted_measurements(self) -> frozenset[Measurement]:
        return self.requires if self.settings.features == "hidden_states" else frozenset()

    def measure(self, batch: StepBatch) -> dict[str, object]:
        """One turn each of the groups' weights and of the adversary; the prompts' weights."""
        factors = torch.ones(len(batch.completions), dtype=torch.float64)
        groups = usable_groups(batch, self.layers)
        if not groups:
            return {ROW_WEIGHTS: factors}
        firsts = [places[0] for places in groups]
        losses = 1 - pass_rates(batch)[firsts]
        window = self.seen_last(self.features_of(batch, firsts), losses)
        grouper = self.grouper = self.grouper or self.new_grouper(window.shape[1])
        with torch.no_grad():
            memberships = grouper.memberships(window[-len(groups) :])
        if self.num_updates >= self.settings.warmup_steps:
            self.weigh_groups(memberships, losses)
            found = soft_prompt_weights(self.weights, memberships)
            for places, weight in zip(groups, found, strict=True):
                factors[places] = weight
        self.teach(grouper, window)
        self.num_updates += 1
        batch.metrics["agro/membership_entropy"] = (float(mean_entropy(memberships)), 1.0)
        batch.metrics["agro/imbalance"] = (float(divergence_from_uniform(memberships)), 1.0)
        robust = (self.weights * soft_group_losses(memberships, losses)).sum()
        batch.metrics["agro/robust_failure_rate"] = (float(robust), 1.0)
        return {ROW_WEIGHTS: factors}

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        return advantages * batch.spread(batch.measurements[ROW_WEIGHTS])

    def features_of(self, batch: StepBatch, places: Sequence[int]) -> Tensor:
        """[B, D] of the prompts of some completions."""
        if self.settings.features == "hidden_states":
            states: Tensor = batch.measurements["hidden_prompt"]
            return states[list(places)]
        prompts = [batch.completions[place].prompt_token_ids.tolist() for place in places]
        return torch.stack([hashed_counts(one, self.settings.num_features) for one in prompts])

    def seen_last(self, features: Tensor, losses: Tensor) -> Tensor:
        """Remember a step's prompts; [at most window, D] those seen last, the step's at the end, as
        the grouper reads them."""
        own = self.settings
        before = features[:0] if self.window_features is None else self.window_features
        length = max(own.window, len(features))  # a step is read whole
        self.window_features = torch.cat([before, features])[-length:]
        self.window_losses = torch.cat([self.window_losses, losses])[-length:]
        if own.features == "tokens":
            return self.window_features
        return standardised(self.window_features.double())

    def new_grouper(self, num_features: int) -> Grouper:
        own = self.settings
        return Grouper(num_features, own.num_groups, learning_rate=own.learning_rate, seed=own.seed)

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

    def teach(self, grouper: Grouper, window: Tensor) -> None:
        """The adversary's turn, on the prompts seen last."""
        own = self.settings
        for _ in range(own.adversary_steps):
            grouper.step(
                window[-own.window :],
                self.window_losses[-own.window :],
                self.weights,
                entropy_weight=own.entropy_weight,
                balance_weight=own.balance_weight,
            )

    def state_dict(self) -> dict[str, object]:
        return {
            "grouper": None if self.grouper is None else self.grouper.state_dict(),
            "weights": self.weights,
            "losses": self.losses,
            "shares": self.shares,
            "window_features": self.window_features,
            "window_losses": self.window_losses,
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (grouper := state["grouper"]) is not None:
            self.grouper = self.new_grouper(len(grouper["parameters"][0]))
            self.grouper.load_state_dict(grouper)
        for name in ("weights", "losses", "shares", "window_features", "window_losses"):
            setattr(self, name, state[name])
        self.num_updates = int(state["num_updates"])


def smoothed(running: Tensor | None, values: Tensor, share: float) -> Tensor:
    """`share` of the new values, the rest of the running ones; the first are taken as they are."""
    return values if running is None else (1 - share) * running + share * values
