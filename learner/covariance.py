"""Tokens that reduce entropy: those with a high covariance of advantage and log-probability.

"The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models"
(https://arxiv.org/abs/2505.22617). Pure functions over flat tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_covariances(advantages: Tensor, logprobs: Tensor, mask: Tensor) -> Tensor:
    """[M] (A - mean A)(log p - mean log p), both means over the tokens in `mask`; 0 outside."""
    if not mask.any():
        return torch.zeros_like(advantages)
    found = (advantages - advantages[mask].mean()) * (logprobs - logprobs[mask].mean())
    return torch.where(mask, found, 0.0)


def number_of(share: float, mask: Tensor) -> int:
    """How many tokens a share of those in `mask` is: rounded down, at least one."""
    return max(1, int(share * int(mask.sum())))


def drawn_between(
    covariances: Tensor, mask: Tensor, *, lowest: float, highest: float, share: float, seed: int
) -> Tensor:
    """[M] bool: tokens drawn at random, without replacement, from those whose covariance lies
    strictly between the bounds; as many as `share` of all tokens in `mask`, if there are."""
    candidates = (mask & (lowest < covariances) & (covariances < highest)).nonzero()[:, 0]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(candidates), generator=generator)
    drawn = torch.zeros_like(mask)
    drawn[candidates[order[: number_of(share, mask)]]] = True
    return drawn


def highest_share(covariances: Tensor, mask: Tensor, *, share: float) -> Tensor:
    """[M] bool: the `share` of the tokens in `mask` with the highest covariance."""
    places = mask.nonzero()[:, 0]
    order = covariances[places].argsort(descending=True, stable=True)
    chosen = torch.zeros_like(mask)
    chosen[places[order[: number_of(share, mask)]]] = True
    return chosen
