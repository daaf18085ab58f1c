"""The parts of a dashboard: panels and their queries.

Plain data: `cluster.monitoring.write` makes Grafana's JSON of it, the page of links and the
tests read the same queries.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.monitoring.catalogue import names
from cluster.monitoring.names import EXPORTED_PREFIX, Family

OF_RUN = 'run=~"$run"'
"""Which series a dashboard shows: `run` is chosen at its top."""


@dataclass(frozen=True, slots=True)
class Query:
    """One line, or one line per combination of tags."""

    expression: str
    legend: str  # Grafana's: {{layer}} is the value of a tag


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart."""

    title: str
    description: str
    unit: str
    """Grafana's name of it: percentunit, s, bytes, short."""
    queries: tuple[Query, ...]
    only_when: str = ""
    """The condition for the panel to have data; empty: every training run has it."""
    is_logarithmic: bool = False

    @property
    def help(self) -> str:
        """Text of the panel's info corner."""
        if not self.only_when:
            return self.description
        return f"{self.description} Empty unless {self.only_when}."


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard."""

    uid: str
    """Part of its address, so it never changes."""
    title: str
    description: str
    panels: tuple[Panel, ...]


class Metric:
    """Queries for a metric of metrics.jsonl, by its name there.

    Example:
        Metric("layer*/accuracy").query("layer {{layer}}").expression
            'ray_mgrpo_layer_accuracy{run=~"$run"}'
    """

    def __init__(self, name: str, *selectors: str) -> None:
        """
        Args:
            name: as in metrics.jsonl, or a family's pattern.
            selectors: more conditions on tags, such as 'layer!="all"'.
        """
        self.family, tags = described(name)
        fixed = [f'{key}="{value}"' for key, value in tags.items()]
        self.condition = ",".join([OF_RUN, *fixed, *selectors])

    @property
    def series(self) -> str:
        return f"{self.family.exported_name}{{{self.condition}}}"

    @property
    def counter(self) -> str:
        """The counter that adds the steps up."""
        assert self.family.is_counted, f"{self.family.pattern} is not counted"
        return f"{EXPORTED_PREFIX}{self.family.counter_name}{{{self.condition}}}"

    def query(self, legend: str) -> Query:
        """The metric as it is; the run's name comes first where several runs are shown."""
        return Query(self.series, f"{{{{run}}}} {legend}")


def described(name: str) -> tuple[Family, dict[str, str]]:
    """The family that has this pattern, or that a metric belongs to, with the tags it fixes."""
    for family in names().families:
        if family.pattern == name:
            return family, {}
    found = names().known(name)
    assert found is not None, f"the catalogue has no {name}"
    return found


def lines(*metrics: tuple[str, str]) -> tuple[Query, ...]:
    """(metric, legend) of each line."""
    return tuple(Metric(name).query(legend) for name, legend in metrics)


def share(title: str, description: str, *metrics: tuple[str, str], only_when: str = "") -> Panel:
    """A panel of fractions, shown as percentages."""
    return Panel(title, description, "percentunit", lines(*metrics), only_when)


def chart(
    title: str,
    description: str,
    unit: str,
    *metrics: tuple[str, str],
    only_when: str = "",
    is_logarithmic: bool = False,
) -> Panel:
    """A panel of metrics as they are."""
    return Panel(title, description, unit, lines(*metrics), only_when, is_logarithmic)


def metrics_of(boards: Iterable[Board]) -> set[str]:
    """Every expression of some dashboards."""
    return {query.expression for b in boards for p in b.panels for query in p.queries}
