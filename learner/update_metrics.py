"""Sums over tokens that become an update's metrics, added up over ranks.

Every rank holds the same names in the same order from the start, so one reduction of one
vector is enough, and a rank without rows takes part in it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist

TOKEN_METRICS = (
    "learner/entropy",
    "learner/kl",
    "learner/clip_fraction",
    "mismatch/logprob_gap_mean",
    "mismatch/importance_weight_mean",
    "mismatch/importance_capped_fraction",
)
"""Means over trained tokens."""
TOTALS = (
    *("loss", "gradient_probe", "trained_tokens", "row_tokens", "input_tokens"),
    "shifted_completions",
)


class UpdateSums:
    """Running (sum, count) pairs of one pass over the rows, on one rank."""

    def __init__(self, device: torch.device | str) -> None:
        names = [f"{name}:{part}" for name in TOKEN_METRICS for part in ("sum", "count")]
        self._index = {name: place for place, name in enumerate([*names, *TOTALS])}
        self._values = torch.zeros(len(self._index), dtype=torch.float64, device=device)

    def add_tokens(self, name: str, values: Tensor) -> None:
        """Add one value per trained token to a mean."""
        self._values[self._index[f"{name}:sum"]] += values.detach().double().sum()
        self._values[self._index[f"{name}:count"]] += values.numel()

    def add(self, name: str, value: Tensor | float) -> None:
        """Add to one of TOTALS."""
        self._values[self._index[name]] += (
            value.detach().double() if isinstance(value, Tensor) else value
        )

    def include(self, other: UpdateSums, *, loss_factor: float) -> None:
        """Add another part of the same update, whose loss is multiplied."""
        values = other._values.clone()
        values[self._index["loss"]] *= loss_factor
        self._values += values

    def reduce(self) -> UpdateSums:
        """Sum over all ranks; every rank must call it."""
        dist.all_reduce(self._values)
        return self

    def total(self, name: str) -> float:
        return float(self._values[self._index[name]])

    def means(self) -> dict[str, tuple[float, float]]:
        """(sum, count) of each token mean that got any values."""
        values = self._values.tolist()
        pairs = {
            name: (values[self._index[f"{name}:sum"]], values[self._index[f"{name}:count"]])
            for name in TOKEN_METRICS
        }
        return {name: pair for name, pair in pairs.items() if pair[1] > 0}


def merge(first: dict[str, tuple[float, float]], second: dict[str, tuple[float, float]]) -> None:
    """Add `second`'s sums and counts to `first`."""
    for name, (total, count) in second.items():
        old_total, old_count = first.get(name, (0.0, 0.0))
        first[name] = (old_total + total, old_count + count)


def gap_metrics(gaps: Tensor, num_ranks: int = 1) -> dict[str, tuple[float, float]]:
    """The tail of |learner - rollout| log-probability gaps: p99 and maximum, in nats.

    Only what may lie above the 99th percentile of all ranks' gaps travels: a hundredth of each.

    Args:
        gaps: [n] of this rank's tokens; no rank may have none and all the others none either.
    """
    total = torch.tensor(len(gaps), device=gaps.device)
    if num_ranks > 1:
        dist.all_reduce(total)
    count = int(total)
    # The "higher" order statistic: torch.quantile refuses inputs above 16 million.
    num_above = count - min(int(0.99 * count), count - 1)
    largest = gaps.new_full((num_above,), -1.0)  # below any gap: this rank has fewer
    own = gaps.topk(min(num_above, len(gaps))).values
    largest[: len(own)] = own
    gathered = [torch.empty_like(largest) for _ in range(num_ranks)]
    if num_ranks > 1:
        dist.all_gather(gathered, largest)
    else:
        gathered = [largest]
    ordered = torch.cat(gathered).sort(descending=True).values
    return {
        "mismatch/logprob_gap_p99": (float(ordered[num_above - 1]), 1.0),
        "mismatch/logprob_gap_max": (float(ordered[0]), 1.0),
    }
