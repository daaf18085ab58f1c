"""DPO: an objective of pairs, as coefficients of rows (https://arxiv.org/abs/2305.18290).

The gradient of -log σ(βΔ), with Δ the chosen row's log-ratio minus the rejected one's, is that of
-w (log p(chosen) - log p(rejected)) with w = βσ(-βΔ) held fixed. So the two rows of a pair may be
cut across micro-batches and ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def dpo_losses(margins: Tensor, *, beta: float) -> Tensor:
    """[P] -log σ(βΔ).

    Args:
        margins: [P] Δ: log-ratio of the chosen row to the reference, minus the rejected row's,
            each the sum over its tokens, in nats.
    """
    return -functional.logsigmoid(beta * margins)


def dpo_coefficients(margins: Tensor, *, beta: float) -> Tensor:
    """[P] w = βσ(-βΔ): how much a pair still pulls its rows apart, no gradient."""
    return beta * torch.sigmoid(-beta * margins.detach())


def pair_margins(log_ratios: Tensor, roles: Tensor, pair_ids: Tensor) -> Tensor:
    """[N] Δ of each row's pair: the log-ratio of its chosen row minus that of its rejected one.

    Args:
        log_ratios: [N].
        roles: [N] +1 for chosen, -1 for rejected, 0 for rows of no pair.
        pair_ids: [N] int64, the same for both rows of a pair; anything for rows of no pair.
    """
    size = int(pair_ids.max()) + 1 if len(pair_ids) else 0
    signed = torch.where(roles == 0, 0.0, roles * log_ratios)
    return torch.zeros(size, dtype=log_ratios.dtype).index_add(0, pair_ids, signed)[pair_ids]
