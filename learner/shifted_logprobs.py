"""Recorded log-probabilities that are not the policy's: finite, and off by more than rounding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import torch
from torch import Tensor

from learner.packing import Microbatch

FEWEST_TOKENS = 4
"""The mean of a completion with fewer tokens is over so many: rounding can move a single one by
half a nat in bfloat16."""
MAX_NAMES = 4


@dataclass(frozen=True, slots=True)
class Shift:
    """One completion that is off by more than the bound."""

    engine: str  # that recorded it
    layer: int
    completion_id: str
    nats: float  # a token: how much more probable the engine recorded it than the learner has it


@torch.no_grad()
def mean_shifts(microbatch: Microbatch, own_logprobs: Tensor) -> Tensor:
    """[rows] nats a token by which recorded log-probabilities exceed the learner's own.

    Of tokens that the policy before the update sampled, all others left out: an older policy, or
    an earlier step, has other log-probabilities by right.

    Args:
        own_logprobs: [N] of that policy, at the sampling temperature.
    """
    is_own = microbatch.is_sampled & ~microbatch.has_recorded_ratio
    gaps = torch.where(is_own, microbatch.rollout_logprobs - own_logprobs, 0.0)
    zeros = gaps.new_zeros(len(microbatch.completion_ids))
    sums = zeros.index_add(0, microbatch.row_ids, gaps)
    counts = zeros.index_add(0, microbatch.row_ids, is_own.to(gaps.dtype))
    return sums / counts.clamp(min=FEWEST_TOKENS)


def is_shifted(shifts: Tensor, bound: float) -> Tensor:
    """[rows] bool. One that is not finite is told by where the loss is not (`nonfinite.py`)."""
    return shifts.isfinite() & (shifts.abs() > bound)


def described(found: Iterable[Shift], bound: float) -> str:
    """Engines, layers and completions, the largest shift first; a sentence for each engine and
    layer."""
    by_origin = attrgetter("engine", "layer")
    return (
        " ".join(
            sentence(engine, layer, list(group))
            for (engine, layer), group in groupby(sorted(found, key=by_origin), key=by_origin)
        )
        + f" (learner.max_logprob_shift is {bound:g} nats a token.)"
    )


def sentence(engine: str, layer: int, found: Sequence[Shift]) -> str:
    largest = sorted(found, key=lambda one: -abs(one.nats))
    named = ", ".join(f"{one.completion_id} by {one.nats:+.3g}" for one in largest[:MAX_NAMES])
    more = f" and {len(found) - MAX_NAMES} more" if len(found) > MAX_NAMES else ""
    return (
        f"{engine or 'An engine'} recorded log-probabilities in layer {layer} that are not the "
        f"policy's, in nats a token: {named}{more}."
    )
