"""The findings of a check: ok, warning, or failure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from mgrpo.records.secret_values import redacted

if TYPE_CHECKING:
    from rich.console import Console

Status = Literal["ok", "warn", "fail"]
MARKS: dict[Status, tuple[str, str]] = {  # sign and colour
    "ok": ("✓", "green"),
    "warn": ("!", "yellow"),
    "fail": ("✗", "red"),
}
FAILED_EXIT_CODE = 2


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One finding."""

    status: Status
    name: str  # "data.train", "context"
    detail: str  # the finding, with its numbers; on failure a remedy; without secrets

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", redacted(self.detail))


@dataclass(slots=True)
class CheckReport:
    """All findings of a check, in their order."""

    lines: list[CheckLine] = field(default_factory=list)

    def add(self, lines: Iterable[CheckLine]) -> None:
        self.lines.extend(lines)

    @property
    def failures(self) -> list[CheckLine]:
        return [line for line in self.lines if line.status == "fail"]

    @property
    def exit_code(self) -> int:
        return FAILED_EXIT_CODE if self.failures else 0

    def to_json(self) -> dict[str, object]:
        """The findings in plain values."""
        return {"would_start": not self.failures, "findings": [asdict(line) for line in self.lines]}

    def summary(self) -> str:
        num_warnings = sum(line.status == "warn" for line in self.lines)
        if self.failures:
            return f"{counted(len(self.failures), 'fault')}: the run would not start."
        if num_warnings:
            return f"No fault found, {counted(num_warnings, 'warning')}."
        return "No fault found."

    def show(self, console: Console) -> None:
        """Print the lines as a table, unwrapped if no terminal limits their width."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(width=1)
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for line in self.lines:
            sign, colour = MARKS[line.status]
            # Text, because details quote data, which may look like rich's markup
            table.add_row(Text(sign, style=colour), line.name, Text(line.detail))
            if not console.is_terminal:
                console.print(Text(f"{sign} {line.name}: {line.detail}"), soft_wrap=True)
        if console.is_terminal:
            console.print(table)
        style = "bold red" if self.failures else "bold"
        console.print(Text(self.summary(), style=style), soft_wrap=True)


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def console(*, stderr: bool = False) -> Console:
    """A terminal to show findings on."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    made.width = made.width or 80  # COLUMNS=0 would print nothing at all
    return made
