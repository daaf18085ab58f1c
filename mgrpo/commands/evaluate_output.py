"""What `mgrpo eval` writes: tables, one JSON object, a block of Markdown, or completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from mgrpo.records.json_object import JsonObject

if TYPE_CHECKING:
    from mgrpo.evaluation.summary import Evaluation
    from mgrpo.types import Completion

Form = Literal["table", "json", "markdown"]

FORM_OF_ENDING: dict[str, Form] = {".json": "json", ".md": "markdown"}
WIDTH_OF_FILES = 160  # columns; no terminal limits the width of a file


@dataclass(frozen=True, slots=True)
class Scored:
    """One policy's evaluation, as completions and as a row."""

    name: str
    evaluation: Evaluation
    row: JsonObject


def form_of(as_json: bool, as_markdown: bool, output: Path | None) -> Form:
    """The output format: as requested, else by the file's suffix, else a table."""
    if as_json:
        return "json"
    if as_markdown:
        return "markdown"
    return FORM_OF_ENDING.get(output.suffix.lower(), "table") if output is not None else "table"


def show(scored: Sequence[Scored], form: Form, stream: TextIO) -> None:
    """Write the results of one policy, or of two with their comparison."""
    from mgrpo.evaluation.comparison import compare

    comparison = None
    if len(scored) == 2:
        comparison = compare(scored[0].evaluation, scored[1].evaluation)
    if form == "json":
        show_json(scored, comparison, stream)
    elif form == "markdown":
        show_markdown(scored, comparison, stream)
    else:
        show_tables(scored, comparison, stream)


def show_json(
    scored: Sequence[Scored], comparison: dict[str, object] | None, stream: TextIO
) -> None:
    """One object: a row with its model, or {"a": row, "b": row, "comparison": ...}."""
    from mgrpo.metrics.log import to_line

    rows = [{"model": policy.name, **policy.row} for policy in scored]
    whole = rows[0]
    if comparison is not None:
        whole = {"a": rows[0], "b": rows[1], "comparison": comparison}
    stream.write(to_line(whole))


def show_markdown(
    scored: Sequence[Scored], comparison: dict[str, object] | None, stream: TextIO
) -> None:
    from mgrpo.evaluation.tables import (
        comparison_note,
        comparison_table,
        evaluation_note,
        evaluation_tables,
        markdown,
    )

    blocks = [
        markdown(evaluation_tables(policy.row, policy.name), evaluation_note(policy.row))
        for policy in scored
    ]
    if comparison is not None:
        table = comparison_table(comparison, [policy.name for policy in scored])
        blocks.append(markdown([table], comparison_note(comparison)))
    stream.write("\n".join(blocks))


def show_tables(
    scored: Sequence[Scored], comparison: dict[str, object] | None, stream: TextIO
) -> None:
    from rich.console import Console

    from mgrpo.training.progress import print_comparison, print_evaluation

    console = Console(
        file=stream, highlight=False, width=None if stream.isatty() else WIDTH_OF_FILES
    )
    for policy in scored:
        print_evaluation(console, policy.row, title=policy.name)
        console.print()
    if comparison is not None:
        print_comparison(console, comparison, names=(scored[0].name, scored[1].name))


def write_completions(completions: Sequence[Completion], file: Path) -> None:
    from mgrpo.metrics.log import to_line

    with file.open("w", encoding="utf-8") as stream:
        stream.writelines(to_line(completion.to_json()) for completion in completions)
