"""From values to places on a chart: ranges, ticks, running means, and fewer points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Values = Sequence[float | None]
MAX_POINTS = 300  # more than that cannot be told apart on a chart 600 units wide
LOG_FROM_RATIO = 50  # a logarithmic axis helps once values differ by this factor


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps [low, high] linearly, or by logarithm, to [start, end] in the chart's units."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (
            (math.log10(self.low), math.log10(self.high))
            if self.log
            else (
                self.low,
                self.high,
            )
        )
        place = math.log10(max(value, self.low)) if self.log else value
        share = (place - low) / (high - low)
        return self.start + share * (self.end - self.start)


def linear_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers that enclose [low, high]."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / max(count - 1, 1)
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten that enclose [low, high], both above 0; every second one if there are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    stride = 1 if last - first <= 5 else 2
    return [10.0**exponent for exponent in range(first, last + stride, stride)]


def step_ticks(first: int, last: int, count: int) -> list[int]:
    """Round step numbers inside [first, last]."""
    if first == last:
        return [first]
    ticks = linear_ticks(first, last, count)
    return [int(tick) for tick in ticks if tick == int(tick) and first <= tick <= last]


def wants_log(values: Values) -> bool:
    """Are the values all above 0 and spread over more than one order of magnitude?"""
    known = [value for value in values if value is not None]
    return bool(known) and min(known) > 0 and max(known) / min(known) >= LOG_FROM_RATIO


def running_mean(values: Values, window: int) -> list[float | None]:
    """Mean of up to `window` values centred on each place; None stays None."""
    half = window // 2
    means: list[float | None] = []
    for index, value in enumerate(values):
        near = [v for v in values[max(0, index - half) : index + half + 1] if v is not None]
        means.append(None if value is None else sum(near) / len(near))
    return means


def smoothing_window(num_points: int) -> int:
    """Steps to average for the eye: none for short runs, then about a twelfth of the run."""
    return 1 if num_points < 24 else min(2 * (num_points // 24) + 1, 25)


def bucket_edges(num_points: int, max_points: int = MAX_POINTS) -> list[int]:
    """Edges that cut `num_points` rows into at most `max_points` runs of near-equal length."""
    num_buckets = min(num_points, max_points)
    return [round(index * num_points / num_buckets) for index in range(num_buckets + 1)]


def bucket_means(values: Values, edges: Sequence[int]) -> list[float | None]:
    """The mean of each run of rows; None where a run has no value."""
    means: list[float | None] = []
    for start, end in pairwise(edges):
        known = [value for value in values[start:end] if value is not None]
        means.append(sum(known) / len(known) if known else None)
    return means
