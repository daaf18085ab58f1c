"""A tiny network that sorts prompts into soft groups, and its adversarial training.

From AGRO (https://arxiv.org/abs/2212.00921): the grouper looks for groups on which the learner
fails, the learner weighs them up. Float64 on the CPU and seeded, so every rank has the same one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import TypedDict

import torch
from torch import Tensor

from learner.robust_weights import soft_group_losses

HIDDEN = (128, 64)
HASH_FACTOR = 2654435761
"""Knuth's multiplicative hash: spreads neighbouring token ids over the buckets."""


def hashed_counts(token_ids: Sequence[int], num_features: int) -> Tensor:
    """[num_features] mean over tokens of a signed bucket each: a bag of tokens of fixed size.

    Stands in for a prompt embedding, since it needs no model; no source has it. The sign keeps
    the expected inner product of different tokens at 0.
    """
    counts = torch.zeros(num_features, dtype=torch.float64)
    for token in token_ids:
        mixed = token * HASH_FACTOR % 2**32
        counts[(mixed >> 8) % num_features] += 1.0 if mixed >> 31 else -1.0
    return counts / max(1, len(token_ids))


def standardised(features: Tensor) -> Tensor:
    """[B, D] less their mean, with a mean square of 1 over all of them; equal ones become 0.

    What all prompts share, such as the end of the chat template, says nothing of any.
    """
    centred = features - features.mean(0)
    return centred / centred.square().mean().sqrt().clamp(min=torch.finfo(centred.dtype).tiny)


def adversary_loss(
    memberships: Tensor,
    losses: Tensor,
    weights: Tensor,
    *,
    entropy_weight: float,
    balance_weight: float,
) -> Tensor:
    """What the grouper minimises, a scalar.

    - sum of weight * group loss - entropy_weight * mean entropy of memberships + balance_weight *
    KL(share of each group || uniform). The last two keep groups from shrinking onto single prompts.

    Args:
        memberships: [B, K], with gradient.
        losses: [B] failure rates.
        weights: [K] of the groups, no gradient.
    """
    fit = (weights * soft_group_losses(memberships, losses)).sum()
    return (
        -fit
        - entropy_weight * mean_entropy(memberships)
        + balance_weight * divergence_from_uniform(memberships)
    )


def mean_entropy(memberships: Tensor) -> Tensor:
    """Mean over prompts of the entropy of their [B, K] memberships, nats."""
    return -torch.xlogy(memberships, memberships).sum(1).mean()


def divergence_from_uniform(memberships: Tensor) -> Tensor:
    """KL(mean membership || uniform), nats."""
    shares = memberships.mean(0)
    return torch.xlogy(shares, shares * len(shares)).sum()


class GrouperState(TypedDict):
    """What a checkpoint keeps of a grouper."""

    parameters: list[Tensor]
    optimizer: dict[str, object]


class Grouper:
    """features -> 128 -> 64 -> K, with its optimizer."""

    def __init__(
        self, num_features: int, num_groups: int, *, learning_rate: float, seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        sizes = (num_features, *HIDDEN, num_groups)
        self.parameters: list[Tensor] = []
        for fan_in, fan_out in pairwise(sizes):
            drawn = torch.randn(fan_in, fan_out, generator=generator, dtype=torch.float64)
            self.parameters += [drawn * (2 / fan_in) ** 0.5, torch.zeros(fan_out).double()]
        for parameter in self.parameters:
            parameter.requires_grad_()
        self.optimizer = torch.optim.Adam(self.parameters, lr=learning_rate)

    def memberships(self, features: Tensor) -> Tensor:
        """[B, K] from [B, num_features]; each row sums to 1."""
        values = features
        for place in range(0, len(self.parameters), 2):
            values = values @ self.parameters[place] + self.parameters[place + 1]
            if place + 2 < len(self.parameters):
                values = values.relu()
        return values.softmax(1)

    def step(
        self,
        features: Tensor,
        losses: Tensor,
        weights: Tensor,
        *,
        entropy_weight: float,
        balance_weight: float,
    ) -> float:
        """One step of the adversary; returns its loss."""
        with torch.enable_grad():
            loss = adversary_loss(
                self.memberships(features),
                losses,
                weights,
                entropy_weight=entropy_weight,
                balance_weight=balance_weight,
            )
            self.optimizer.zero_grad()
            loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def state_dict(self) -> GrouperState:
        return {
            "parameters": [parameter.detach().clone() for parameter in self.parameters],
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
        }

    def load_state_dict(self, state: GrouperState) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, state["parameters"], strict=True):
                parameter.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
