"""How far two recipes lie apart, with what a few seeds leave open: tests over runs.

Seeds that both have are paired (Student's t of the differences): the same seed draws the same
problems. Otherwise Welch's t compares independent runs whose spreads may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from scipy.stats import ttest_ind, ttest_rel

CONFIDENCE = 0.95
ROUNDING = 1e-12  # differences closer than this are equal


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


def paired_t(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """Second minus first, pair by pair; None where a spread cannot be told: one pair, or all
    differences equal."""
    differences = [right - left for left, right in zip(first, second, strict=True)]
    if len(differences) < 2 or max(differences) - min(differences) < ROUNDING:
        return None
    test = ttest_rel(second, first)
    low, high = test.confidence_interval(CONFIDENCE)
    return Difference(
        mean=fmean(differences), half_width=float(high - low) / 2, p=float(test.pvalue)
    )
