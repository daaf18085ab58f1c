"""What a chart shows, before it has a size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mgrpo.report.scales import Values
from mgrpo.report.words import number, percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line, or one layer of a stack."""

    label: str
    values: Values  # one per step of the chart; None where there is none
    color: int  # 0 to 5
    dashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Single measurements drawn over the lines, e.g. held-out accuracies."""

    label: str
    points: Sequence[tuple[int, float]]  # (step, value)
    color: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What a chart shows, before it has a size."""

    title: str
    steps: Sequence[int]  # x of every value
    series: Sequence[Series]
    step_names: Sequence[str]  # as read out: "12", or "12 to 15" where a point is a mean
    unit: str  # "%" for shares from 0 to 1, else shown as is: "tokens", "nats", ""
    marks: Sequence[Marks] = field(default_factory=tuple)
    stacked: bool = False
    full_share: bool = False  # the axis runs from 0 to 100 %
    may_use_log: bool = False
    note: str = ""
    wide: bool = False  # also drawn at a larger size, for screens that have it

    def write(self, value: float | None) -> str:
        if self.unit == "%":
            return percent(value)
        return number(value)

    @property
    def first_step(self) -> int:
        return min([self.steps[0], *(marks.points[0][0] for marks in self.marks)])

    @property
    def last_step(self) -> int:
        return max([self.steps[-1], *(marks.points[-1][0] for marks in self.marks)])

    @property
    def heights(self) -> list[float]:
        """Every height that must fit: sums where bars are stacked."""
        if self.stacked:
            columns = zip(*(series.values for series in self.series), strict=True)
            return [0.0, *(sum(value or 0.0 for value in column) for column in columns)]
        known = [value for series in self.series for value in series.values if value is not None]
        return known + [value for marks in self.marks for _, value in marks.points]
