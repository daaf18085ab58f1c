"""What a plug-in's objective sees of a micro-batch: flat tokens, rows whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveTokens:
    """n tokens of R whole completions. `policy_logprobs` and `entropies` carry the gradient."""

    policy_logprobs: Tensor  # [n]
    old_logprobs: Tensor  # [n]
    ref_logprobs: Tensor | None  # [n]; None without a KL penalty
    entropies: Tensor  # [n]
    advantages: Tensor  # [n]
    token_weights: Tensor  # [n] what each token's objective and KL are multiplied by
    row_ids: Tensor  # [n] int64, which completion a token is of, 0 to R - 1
    num_rows: int  # R
    columns: Mapping[str, Tensor]  # by name, [n]: what plug-ins' `token_columns` computed

    @property
    def log_ratio(self) -> Tensor:
        """[n] log of the probability ratio to the policy that sampled, kept within ±20."""
        return (self.policy_logprobs - self.old_logprobs).clamp(-20.0, 20.0)

    def row_means(self, values: Tensor) -> Tensor:
        """[n] -> [R] means over each completion's tokens."""
        ones = torch.ones_like(values)
        return self.row_sums(values) / self.row_sums(ones).clamp(min=1)

    def row_sums(self, values: Tensor) -> Tensor:
        """[n] -> [R]."""
        zeros = torch.zeros(self.num_rows, dtype=values.dtype, device=values.device)
        return zeros.index_add(0, self.row_ids, values)

    def spread(self, values: Tensor) -> Tensor:
        """[R] -> [n], each completion's value on all of its tokens."""
        return values[self.row_ids]
