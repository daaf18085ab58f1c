"""How well a mean of a few values is known."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.stats import ttest_1samp

CONFIDENCE = 0.95
ROUNDING = 1e-12  # values closer than this are equal


def half_width(values: Sequence[float]) -> float | None:
    """Of the 95 % interval of a mean (t); None where a spread cannot be told."""
    if len(values) < 2 or max(values) - min(values) < ROUNDING:
        return None
    low, high = ttest_1samp(values, 0.0).confidence_interval(CONFIDENCE)
    return float(high - low) / 2
