"""What a chart of the report shows; charts.js draws it with uPlot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mgrpo.records.json_object import JsonObject
from mgrpo.report.words import number, percent

Values = Sequence[float | None]
SeriesKind = Literal["line", "dash", "bar", "mark"]
LOG_FROM_RATIO = 50  # a logarithmic axis helps once values differ by this factor
SMOOTHED_FROM = 24  # points; shorter runs are shown as they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line, one layer of stacked bars, or single measurements drawn over the lines."""

    label: str
    values: Values  # [points]; None where there is none
    color: int  # 0 to 5
    kind: SeriesKind = "line"

    @property
    def known(self) -> list[float]:
        return [value for value in self.values if value is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One figure. Its table of values is also what the legend reads single steps from."""

    title: str
    steps: Sequence[int]  # [points]
    step_names: Sequence[str]  # [points] "12", or "12 to 15" where a point is a mean of steps
    series: Sequence[Series]
    unit: str  # "%" for shares from 0 to 1, else shown as it is: "tokens", "nats"
    full_share: bool = False  # the axis runs from 0 to 100 %
    may_use_log: bool = False
    wide: bool = False
    note: str = ""

    def write(self, value: float | None) -> str:
        return percent(value) if self.unit == "%" else number(value)

    @property
    def is_log(self) -> bool:
        """Are the values all above 0 and spread over more than one order of magnitude?"""
        known = [value for series in self.series for value in series.known]
        return self.may_use_log and min(known) > 0 and max(known) / min(known) >= LOG_FROM_RATIO

    @property
    def axis(self) -> str:
        unit = "share, %" if self.unit == "%" else self.unit
        return f"{unit}, logarithmic" if self.is_log else unit

    @property
    def rows(self) -> list[list[str]]:
        """[points][1 + series] cells of the table: the step, then its values."""
        columns = [[self.write(value) for value in series.values] for series in self.series]
        return [list(row) for row in zip(self.step_names, *columns, strict=True)]

    @property
    def last(self) -> int:
        """The last point of the training itself, where there is one: an evaluation may come after
        it."""
        lines = [one for one in self.series if one.kind != "mark"] or self.series
        return max(
            index
            for series in lines
            for index, value in enumerate(series.values)
            if value is not None
        )

    @property
    def summary(self) -> str:
        """The chart in a sentence, for screen readers."""
        unit = "" if self.unit in ("", "%") else f" {self.unit}"
        courses = "; ".join(
            f"{series.label} from {self.write(series.known[0])} to "
            f"{self.write(series.known[-1])}{unit}"
            for series in self.series
        )
        steps = f"steps {self.steps[0]} to {self.steps[-1]}"
        return f"{self.title}, {steps}: {courses}. Arrow keys read single steps."

    @property
    def drawing(self) -> JsonObject:
        """What charts.js needs beside the table."""
        return {
            "steps": self.steps,
            "series": [
                {"kind": one.kind, "color": one.color, "values": list(map(rounded, one.values))}
                for one in self.series
            ],
            "last": self.last,
            "window": smoothing_window(len(self.steps)),
            "log": self.is_log,
            "fullShare": self.full_share,
            "percent": self.unit == "%",
        }


def smoothing_window(num_points: int) -> int:
    """Points of the running mean: none for short runs, then about a twelfth of the run."""
    return 1 if num_points < SMOOTHED_FROM else min(2 * (num_points // 24) + 1, 25)


def rounded(value: float | None) -> float | None:
    """More digits cannot be seen."""
    return None if value is None else float(f"{value:.6g}")
