"""The learning rate at each update, as a pure function."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "linear", "cosine"]


def learning_rate_at(
    update: int, *, peak: float, num_updates: int, warmup_updates: int, schedule: Schedule
) -> float:
    """The learning rate of one update.

    It rises linearly over the warm-up, whose last update has the peak, then follows the
    schedule. linear and cosine would be 0 one update after the last, so that no update is
    spent at a rate of 0.

    Args:
        update: 0 for the run's first update.
        num_updates: updates in the whole run; later ones keep the last update's rate.
        warmup_updates: updates of the warm-up; 0 starts at the peak.
    """
    if update < warmup_updates:
        return peak * (update + 1) / warmup_updates
    if schedule == "constant":
        return peak
    remaining_updates = max(num_updates - warmup_updates, 1)
    done_fraction = min(update - warmup_updates, remaining_updates - 1) / remaining_updates
    if schedule == "linear":
        return peak * (1 - done_fraction)
    if schedule == "cosine":
        return peak * (1 + math.cos(math.pi * done_fraction)) / 2
    raise ValueError(f"unknown schedule {schedule!r}; use constant, linear or cosine")
