"""How far two methods lie apart, with what a few seeds leave open.

Welch's t: means of independent runs whose spreads may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from scipy.stats import ttest_ind

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Of the means of two samples, in their unit."""

    mean: float
    half_width: float  # of the 95 % interval
    p: float  # two-sided, of no difference


def welch(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """Second minus first; None where a spread cannot be told: one seed, or no spread in either."""
    if min(len(first), len(second)) < 2 or variance(first) == variance(second) == 0:
        return None
    test = ttest_ind(second, first, equal_var=False)
    low, high = test.confidence_interval(CONFIDENCE)
    return Difference(
        mean=fmean(second) - fmean(first),
        half_width=float(high - low) / 2,
        p=float(test.pvalue),
    )
