"""Tables of a plan and of a simulation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mgrpo.plan.layouts import LayoutOutcome
from mgrpo.records.json_object import JsonObject
from mgrpo.report.words import duration


def table(rows: Sequence[Sequence[str]] | Iterator[list[str]], *, indent: int = 0) -> Iterator[str]:
    """Rows of cells, each column as wide as its widest cell."""
    cells = [list(row) for row in rows]
    widths = [max(len(row[n]) for row in cells) for n in range(len(cells[0]))] if cells else []
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield " " * indent + line.rstrip()


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def layout_cells(rows: Sequence[LayoutOutcome]) -> Iterator[list[str]]:
    """A table of compared layouts."""
    yield ["layout", "order", "GPUs", "a step", "tokens/s", "GPUs busy", "engines, learner"]
    for row in rows:
        outcome = row.outcome
        yield [
            row.kind,
            row.order,
            row.gpus,
            plain(duration(outcome.seconds_per_step)),
            f"{row.tokens_per_s:,.0f}",
            percent(outcome.gpus_busy),
            ", ".join(percent(share) for share in outcome.busy_shares.values()),
        ]


def row_json(row: LayoutOutcome) -> JsonObject:
    """One compared layout."""
    return {
        "layout": row.kind,
        "order": row.order,
        "gpus": row.gpus,
        "prompts_per_step": row.recipe.method.prompts_per_step,
        "seconds_per_step": row.outcome.seconds_per_step,
        "tokens_per_s": row.tokens_per_s,
        "gpus_busy": row.outcome.gpus_busy,
        "busy": row.outcome.busy_shares,
        "is_on_policy": row.is_on_policy,
    }
