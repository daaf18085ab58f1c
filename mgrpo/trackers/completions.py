"""Recorded completions as a small table for trackers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mgrpo.types import Completion

EVERY_STEPS = 10
MAX_ROWS = 20
MAX_CHARACTERS = 4000  # of a text
COLUMNS = ("id", "layer", "question", "completion", "reference", "reward")

Cell = str | int | float | None
Table = Sequence[Sequence[Cell]]
"""Rows with the values of COLUMNS."""


def table_of(completions: Iterable[Completion]) -> Table:
    """The first of a step's completions; a correction's question is empty."""
    rows: list[list[Cell]] = []
    for one in completions:
        if len(rows) == MAX_ROWS:
            break
        reward = None if one.reward is None else one.reward.value
        texts = [text[:MAX_CHARACTERS] for text in (one.prompt_text, one.text)]
        rows.append([one.completion_id, one.layer, *texts, one.reference_answer, reward])
    return rows


def as_markdown(table: Table) -> str:
    """For trackers that show text; each text stays on its row's line."""
    lines: list[Sequence[Cell]] = [COLUMNS, ["---"] * len(COLUMNS), *table]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def cell(value: Cell) -> str:
    shown = f"{value:.3g}" if isinstance(value, float) else str("" if value is None else value)
    return shown.replace("|", "\\|").replace("\n", "<br>")
