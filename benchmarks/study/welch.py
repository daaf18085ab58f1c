"""How far two methods lie apart, with what a few seeds leave open.

Welch's t: means of independent runs whose spreads may differ. Student's distribution is integrated
here, since that is all that is needed of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

CONFIDENCE = 0.95
INTERVALS = 2000  # of Simpson's rule


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Of the means of two samples, in their unit."""

    mean: float
    half_width: float  # of the 95 % interval
    p: float  # two-sided, of no difference


def welch(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """Second minus first; None where a spread cannot be told: one seed, or no spread in either."""
    if min(len(first), len(second)) < 2:
        return None
    squares = [variance(sample) / len(sample) for sample in (first, second)]
    total = sum(squares)
    if total == 0:
        return None
    freedom = total**2 / sum(
        square**2 / (len(sample) - 1)
        for square, sample in zip(squares, (first, second), strict=True)
    )
    mean, error = fmean(second) - fmean(first), math.sqrt(total)
    return Difference(
        mean=mean,
        half_width=error * quantile(CONFIDENCE, freedom),
        p=1 - share_within(abs(mean) / error, freedom),
    )


def share_within(t: float, freedom: float) -> float:
    """P(|T| < t). With T = sqrt(freedom) tan(angle) its density is cos(angle)^(freedom - 1)."""
    return area(math.atan(t / math.sqrt(freedom)), freedom) / area(math.pi / 2, freedom)


def quantile(share: float, freedom: float) -> float:
    """The t that P(|T| < t) = share."""
    low, high = 0.0, math.pi / 2
    wanted = share * area(high, freedom)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if area(middle, freedom) < wanted else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def area(angle: float, freedom: float) -> float:
    """The integral of cos^(freedom - 1) from 0, by Simpson's rule."""
    step = angle / INTERVALS
    total = 0.0
    for place in range(INTERVALS + 1):
        factor = 1 if place in (0, INTERVALS) else 4 if place % 2 else 2
        total += factor * max(0.0, math.cos(place * step)) ** (freedom - 1)
    return total * step / 3
