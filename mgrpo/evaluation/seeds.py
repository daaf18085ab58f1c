"""How far two recipes lie apart, with what a few seeds leave open: tests over runs.

Seeds that both have are paired (Student's t of the differences): the same seed draws the same
problems. Otherwise Welch's t compares independent runs whose spreads may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from scipy.stats import ttest_1samp, ttest_ind, ttest_rel

from mgrpo.metrics.intervals import CONFIDENCE, ROUNDING


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


def equivalence(first: Sequence[float], second: Sequence[float], *, margin: float) -> float | None:
    """p of two one-sided paired t-tests (Schuirmann, 1987): small where the means are less than
    `margin` apart; None where a spread cannot be told, as for `paired_t`."""
    differences = [right - left for left, right in zip(first, second, strict=True)]
    if len(differences) < 2 or max(differences) - min(differences) < ROUNDING:
        return None
    above = ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = ttest_1samp(differences, margin, alternative="less").pvalue
    return float(max(above, below))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of one family of tests, adjusted after Holm (1979): the chance that any of those
    below a level is so by accident is at most that level."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted
