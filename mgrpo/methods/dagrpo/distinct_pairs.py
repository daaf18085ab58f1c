"""Advantages from pairs of completions that are distinct enough to be compared.

A reconstruction of DaGRPO (https://arxiv.org/abs/2512.06337), of which only the idea is public.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from learner.advantages import ZERO_STD_TOLERANCE

ROUNDING = 1e-12


def pairwise_advantages(
    rewards: Tensor, is_distinct: Tensor, *, ddof: int = 1, epsilon: float = 1e-6
) -> Tensor:
    """A_i = sum over j of K_ij (r_i - r_j) / (G std), K being 1 for distinct pairs.

    With every pair distinct it is GRPO's advantage, since the differences then add up to
    G (r_i - mean).

    Args:
        rewards: [G] of one group.
        is_distinct: [G, G] bool, symmetric.

    Returns:
        [G], sum 0; all 0 where the rewards are equal.
    """
    spread = rewards.std(correction=ddof)
    if len(rewards) < 2 or spread <= ZERO_STD_TOLERANCE:
        return torch.zeros_like(rewards)
    differences = rewards[:, None] - rewards[None, :]
    total = torch.where(is_distinct, differences, 0.0).sum(1)
    return total / (len(rewards) * (spread + epsilon))


def distinct_by_score(scores: Tensor, *, threshold: float) -> Tensor:
    """[G, G] bool: the scores, [G], differ by the threshold or more."""
    return (scores[:, None] - scores[None, :]).abs() >= threshold - ROUNDING


def distinct_by_tokens(completions: Sequence[Sequence[int]], *, threshold: float) -> Tensor:
    """[G, G] bool: the cosine of the two completions' token counts is at most 1 - threshold.

    Counts of tokens stand in for an embedding of the text, since they need no model.
    """
    counts = [Counter(token_ids) for token_ids in completions]
    norms = [sum(n * n for n in one.values()) ** 0.5 for one in counts]
    cosines = torch.tensor(
        [
            [
                sum(n * other[token] for token, n in one.items()) / max(norm * other_norm, 1.0)
                for other, other_norm in zip(counts, norms, strict=True)
            ]
            for one, norm in zip(counts, norms, strict=True)
        ],
        dtype=torch.float64,
    )
    return cosines <= 1 - threshold + ROUNDING


def shaped_probability(logprobs: Tensor, *, gamma: float) -> Tensor:
    """p / (p + gamma), elementwise: what is maximised for tokens that an expert wrote.

    From LUFFY (https://arxiv.org/abs/2504.14945). Against p itself, whose gradient on log p is p,
    it favours tokens that the policy finds unlikely; no ratio and no old log-probability.
    """
    probabilities = logprobs.exp()
    return probabilities / (probabilities + gamma)
