"""From a row of data to a Problem, with the unusable rows counted by reason."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from mgrpo.config.data import RowsSource
from mgrpo.data.formats.answers import answer_fault, final_answer, solution_before
from mgrpo.data.formats.chats import UnfitChat, chat_in, question_of
from mgrpo.data.formats.files import Row
from mgrpo.errors import DataError
from mgrpo.types import Problem

EXAMPLES_PER_REASON = 3
MISSING = object()
NAMED_ROWS = 1000  # whose columns are listed where one is missing
NOT_TEXT = "not text or a number"


@dataclass(slots=True, kw_only=True)
class LoadedData:
    """The problems of one source, and its unusable rows."""

    problems: list[Problem] = field(default_factory=list)
    num_dropped: Counter[str] = field(default_factory=Counter)  # reason -> rows
    examples: dict[str, list[str]] = field(default_factory=dict)  # reason -> positions, a few each

    def drop(self, reason: str, where: str) -> None:
        self.num_dropped[reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES_PER_REASON:
            examples.append(where)

    @property
    def num_rows(self) -> int:
        return len(self.problems) + self.num_dropped.total()

    @property
    def dropped_fraction(self) -> float:
        return self.num_dropped.total() / max(1, self.num_rows)

    def describe_dropped(self) -> str:
        """ "3 no answer (line 4, line 9, line 12); 1 not JSON (line 2)" """
        return "; ".join(
            f"{count} {reason} ({', '.join(self.examples[reason])}"
            f"{', ...' if count > len(self.examples[reason]) else ''})"
            for reason, count in self.num_dropped.most_common()
        )


class UnfitRow(Exception):
    """Why a row is unusable, as a phrase after a count."""


def problems_of(
    rows: Iterable[Row], source: RowsSource, *, where: str, kind: str = "file"
) -> LoadedData:
    """The rows' problems; unusable rows are counted by reason.

    Args:
        where: the source of the rows, for messages.
        kind: the source's type, for the message about an empty one.

    Raises:
        DataError: a column of the recipe is in no row, or no row is usable.
    """
    data = LoadedData()
    columns = NamedColumns(source)
    for row in rows:
        if not row.fault and isinstance(row.value, dict):
            columns.look_at(row.value)
        try:
            data.problems.append(problem_of(row, source))
        except UnfitRow as reason:
            data.drop(str(reason), row.where)
    columns.refuse_missing(where)
    if not data.problems:
        what = data.describe_dropped() or f"the {kind} is empty"
        nested = "; a part of a column is named with dots, reward_model.ground_truth or answer.0"
        raise DataError(
            f"{where} contains no usable problem: {what}. Each "
            f"{'line' if kind == 'file' else 'row'} is like "
            f'{{"{source.question_field}": "What is 3 + 4?", "{source.answer_field}": "7"}}'
            f"{nested if NOT_TEXT in what else ''}."
        )
    return data


def problem_of(row: Row, source: RowsSource) -> Problem:
    """The problem of a row of named columns.

    Raises:
        UnfitRow: it cannot be read, or has no usable question or answer.
    """
    if row.fault:
        raise UnfitRow(row.fault)
    if not isinstance(row.value, dict):
        raise UnfitRow("not a JSON object")
    columns: dict[str, object] = row.value
    question = text_at(columns, source.question_field, "question", source)
    answer = text_at(columns, source.answer_field, "answer", source)
    if fault := text_fault(question) or text_fault(answer):
        raise UnfitRow(fault)
    reference = final_answer(answer)
    if fault := answer_fault(reference):
        raise UnfitRow(fault)
    domain = value_at(columns, source.domain_field) if source.domain_field else None
    solution = solution_before(answer)
    if source.solution_field is not None:
        given = value_at(columns, source.solution_field)
        solution = "" if given in (None, MISSING) else str(given).strip()
    problem = Problem(
        problem_id=f"{row.stem}/{row.number}",
        question=question.strip(),
        answer=reference,
        domain="default" if domain in (None, MISSING) else str(domain),
        solution=solution,
        metadata={
            key: plain(value)
            for key in source.metadata_fields
            if (value := value_at(columns, key)) not in (None, MISSING)
        },
    )
    if fault := text_fault(problem.domain) or text_fault(problem.solution):
        raise UnfitRow(fault)
    return problem


def text_at(columns: dict[str, object], path: str, what: str, source: RowsSource) -> str:
    """A column's value as the text in the data.

    Raises:
        UnfitRow: there is none, or it is neither text, a number nor (for a question) a chat.
    """
    value = value_at(columns, path)
    if what == "question" and (chat := chat_in(value)) is not None:
        try:
            value = question_of(chat, ignore_earlier_turns=source.ignore_earlier_turns)
        except UnfitChat as error:
            raise UnfitRow(str(error)) from error
    if value in (None, MISSING) or (isinstance(value, str) and not value.strip()):
        raise UnfitRow(f"no {what}")
    if what == "question" and value != value:  # NaN, a table's mark of a missing value
        raise UnfitRow("no question")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # an integer column with a missing value stores 7 as 7.0
    if isinstance(value, str | int | float | Decimal):
        return str(value)
    raise UnfitRow(f"{what} is a {type(value).__name__}, {NOT_TEXT}")


def value_at(columns: dict[str, Any], path: str) -> Any:
    """The value of a column; dots select nested ones, numbers list items. MISSING: there is
    none."""
    if path in columns:
        return columns[path]
    value: Any = columns
    for key in path.split("."):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return MISSING
    return value


def plain(value: Any) -> Any:
    """The value with plain Python numbers, for computations with metadata."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value


def text_fault(text: str) -> str:
    """Why tokenizers refuse this text; "" if they accept it."""
    if "\0" in text:
        return "with a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "with half a character (a lone surrogate)"
    return ""


class NamedColumns:
    """The recipe's columns that were found in the rows."""

    def __init__(self, source: RowsSource) -> None:
        keys = ("question_field", "answer_field", "domain_field", "solution_field")
        named = [(key, getattr(source, key)) for key in keys]
        named += [("metadata_fields", column) for column in source.metadata_fields]
        self.unseen = [(key, column) for key, column in named if column is not None]
        self.names: dict[str, None] = {}  # of the first rows
        self.num_rows = 0

    def look_at(self, columns: dict[str, object]) -> None:
        if self.num_rows < NAMED_ROWS:
            self.names.update(dict.fromkeys(column_names(columns)))
        self.num_rows += 1
        if self.unseen:
            self.unseen = [
                column for column in self.unseen if value_at(columns, column[1]) is MISSING
            ]

    def refuse_missing(self, where: str) -> None:
        """Raise DataError if a column of the recipe is in no row."""
        if not self.num_rows or not self.unseen:
            return
        key, column = self.unseen[0]
        near = difflib.get_close_matches(column, self.names, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise DataError(
            f"{where} has no column {column!r} ({key}).{hint} Its columns: "
            f"{', '.join(self.names) or 'none'}. Set {key} to one of them in the recipe."
        )


def column_names(columns: dict[str, object], prefix: str = "") -> list[str]:
    """All names that `value_at` accepts, without list items."""
    names = []
    for key, value in columns.items():
        name = f"{prefix}{key}"
        names += column_names(value, f"{name}.") if isinstance(value, dict) and value else [name]
    return names
