"""Does a number that is measured at every step grow, and by how much? Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

BLOCKS = 10
"""Neighbouring measurements are alike, so the line is fitted to the means of so many blocks: their
errors are nearly independent, as the standard error's formula has it."""
ERRORS = 3.0
"""Standard errors by which a growth must exceed what is allowed."""


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth of a number a step, and its standard error."""

    per_step: float
    error: float

    def exceeds(self, allowed: float) -> bool:
        """Is the growth surely more than that?"""
        return self.per_step - ERRORS * self.error > allowed


def slope(values: Sequence[float]) -> Slope:
    """The least-squares line through a number's measurements, one for each step.

    Standard error of a slope, over the n blocks: sqrt(sum of squared residuals / (n - 2) / sum of
    (x - mean x)^2).

    Args:
        values: at least 2 * BLOCKS; those that do not fill a block are left out at the start.
    """
    size = len(values) // BLOCKS
    if size < 2:
        raise ValueError(f"A slope needs {2 * BLOCKS} measurements, not {len(values)}.")
    kept = values[-size * BLOCKS :]
    means = [fmean(kept[at : at + size]) for at in range(0, len(kept), size)]
    places = [size * (number - (BLOCKS - 1) / 2) for number in range(BLOCKS)]
    spread = sum(place * place for place in places)
    mean = fmean(means)
    per_step = sum(x * (y - mean) for x, y in zip(places, means, strict=True)) / spread
    left = [y - mean - per_step * x for x, y in zip(places, means, strict=True)]
    return Slope(per_step, math.sqrt(sum(one * one for one in left) / (BLOCKS - 2) / spread))
