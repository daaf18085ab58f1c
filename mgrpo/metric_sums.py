"""Means as (sum, count), divided once: the form in which every room reports what it measured."""

from __future__ import annotations

from collections.abc import Mapping

MAXIMUM_SUFFIX = "_max"


class MetricSums:
    """Means kept as (sum, count) and divided once, so that splitting the data changes nothing.

    A name that ends in "_max" is a maximum: of several values the largest stays, with count 1.
    """

    def __init__(self, sums: Mapping[str, tuple[float, float]] | None = None) -> None:
        self.sums: dict[str, tuple[float, float]] = {}
        self.merge(sums or {})

    def add(self, name: str, total: float, count: float = 1.0) -> None:
        """Add a sum of `count` values; for a "_max" name, one candidate for the maximum."""
        if name.endswith(MAXIMUM_SUFFIX):
            best = max(total, self.sums[name][0]) if name in self.sums else total
            self.sums[name] = (best, 1.0)
            return
        old_total, old_count = self.sums.get(name, (0.0, 0.0))
        self.sums[name] = (old_total + total, old_count + count)

    def add_total(self, name: str, value: float) -> None:
        """Add to a number that is a step's whole, such as seconds: parts of it add up."""
        total, _ = self.sums.get(name, (0.0, 1.0))
        self.sums[name] = (total + value, 1.0)

    def merge(self, other: MetricSums | Mapping[str, tuple[float, float]]) -> None:
        """Add another rank's, micro-batch's or actor's sums."""
        sums = other.sums if isinstance(other, MetricSums) else other
        for name, (total, count) in sums.items():
            self.add(name, total, count)

    def means(self) -> dict[str, float]:
        """Each name's mean (or maximum). A name with count 0 has no mean and is left out."""
        return {name: total / count for name, (total, count) in self.sums.items() if count != 0}
