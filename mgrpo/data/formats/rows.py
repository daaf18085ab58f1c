"""From a row of data to a Problem, with the unusable rows counted by reason."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from mgrpo.config.data import COLUMNS, RowsSource
from mgrpo.data.formats.answers import answer_fault, final_answer, solution_before
from mgrpo.data.formats.benchmarks import prepared
from mgrpo.data.formats.chats import (
    Turn,
    UnfitRow,
    Written,
    chat_in,
    content_of,
    is_reply,
    parted,
    role_of,
)
from mgrpo.data.formats.files import Row
from mgrpo.data.formats.places import rows_at
from mgrpo.data.progress import Note, noting
from mgrpo.data.store import StoredProblems
from mgrpo.errors import DataError
from mgrpo.records.json_object import JsonObject
from mgrpo.types import Problem

EXAMPLES_PER_REASON = 3
MISSING = object()
NAMED_ROWS = 1000  # whose columns are listed where one is missing
NOT_TEXT = "not text or a number"
WRITTEN = (str, int, float, Decimal)
"""Types of values that are read as text."""


@dataclass(slots=True, kw_only=True)
class LoadedData:
    """The problems of one source, and its unusable rows."""

    problems: list[Problem] | StoredProblems = field(default_factory=list)
    num_dropped: Counter[str] = field(default_factory=Counter)  # reason -> rows
    examples: dict[str, list[str]] = field(default_factory=dict)  # reason -> positions, a few each
    longest: list[tuple[int, Problem]] | None = field(default=None, compare=False)
    """Tokens of the longest layer-1 prompts, and their problems; None: not all were measured."""

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


def load_rows(source: RowsSource, into: list[Problem] | StoredProblems, note: Note) -> LoadedData:
    """A source's problems.

    Args:
        into: what they are put into; it is empty.
        note: gets the number of rows that were read, from time to time.

    Raises:
        DataError: its rows cannot be read, lack a column, or hold no problem.
        HubUnreachable: its hub does not answer, and it is not in the cache.
    """
    rows = noting(rows_at(source), note, f"{source.path}: {{}} rows read")
    return problems_of(rows, source, into)


def problems_of(
    rows: Iterable[Row], source: RowsSource, into: list[Problem] | StoredProblems
) -> LoadedData:
    """The rows' problems; unusable rows are counted by reason.

    Raises:
        DataError: a column of the recipe is in no row, or no row is usable.
    """
    data = LoadedData(problems=into)
    columns = NamedColumns(source)
    not_taken = Counter[str]()
    for given in rows:
        try:
            row = prepared(given, source.format)
            if not row.fault and isinstance(row.value, dict):
                columns.look_at(row.value)
                if other := other_value(row.value, source.where):
                    not_taken[other] += 1
                    continue
            data.problems.append(problem_of(row, source))
        except UnfitRow as reason:
            data.drop(str(reason), given.where)
        if data.num_rows == source.max_rows:
            break
    columns.refuse_missing(source.path)
    if not data.num_rows and not_taken:
        found = ", ".join(other for other, _ in not_taken.most_common(EXAMPLES_PER_REASON))
        raise DataError(
            f"{source.path} has no row that fits where = {json.dumps(source.where)}: of "
            f"{not_taken.total()} rows most have {found}. Take other values, or leave where out."
        )
    if not data.problems:
        what = data.describe_dropped() or "there are no rows"
        nested = "; a part of a column is named with dots, reward_model.ground_truth or answer.0"
        raise DataError(
            f"{source.path} contains no usable problem: {what}. Each row is like "
            f'{{"{source.question_field}": "What is 3 + 4?", "{source.answer_fields[0]}": "7"}}'
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
    chat = chat_in(value_at(columns, source.question_field))
    earlier, question, reply = conversation_at(columns, source, chat)
    answer = answer_at(columns, source) or reply
    reference = final_answer(answer)
    if answer and (fault := answer_fault(reference)):
        raise UnfitRow(fault)
    if not answer and source.needs_answer:
        raise UnfitRow("no answer")
    solution = reply or solution_before(answer)
    if source.solution_field is not None:
        given = value_at(columns, source.solution_field)
        solution = "" if given in (None, MISSING) else str(given).strip()
    domain = value_at(columns, source.domain_field) if source.domain_field else None
    problem = Problem(
        problem_id=f"{row.stem}/{row.number}",
        question=question,
        answer=reference,
        domain=(source.name or "default") if domain in (None, MISSING) else str(domain),
        solution=solution,
        metadata=metadata_of(columns, source),
        earlier_turns=earlier,
        is_chat=chat is not None,
    )
    texts = [problem.question, answer, problem.domain, problem.solution]
    for text in (*texts, *(turn["content"] for turn in earlier)):
        if fault := text_fault(text):
            raise UnfitRow(fault)
    return problem


def other_value(columns: dict[str, object], where: Mapping[str, Sequence[object]]) -> str:
    """The first column with a value that is not wanted, and the value; "" if the row is taken."""
    for path, wanted in where.items():
        value = value_at(columns, path)
        text = "no value" if value in (None, MISSING) else as_text(value)
        if text not in map(as_text, wanted):
            return f"{path}: {text[:80]}"
    return ""


def as_text(value: object) -> str:
    """A value as text. An integer column with a gap stores 7 as 7.0: whole numbers read 7."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def conversation_at(
    columns: dict[str, object], source: RowsSource, chat: Sequence[Written] | None
) -> tuple[list[Turn], str, str]:
    """Earlier turns, the question, and the reference reply that a chat of `messages` ends with.

    Args:
        chat: the question's turns; None: it is text.

    Raises:
        UnfitRow: there is no question, or it is neither text, a number nor a chat.
    """
    value = value_at(columns, source.question_field)
    earlier: list[Turn] = []
    reply = ""
    if chat is not None:
        if source.format == "messages" and is_reply(chat[-1]):
            reply, chat = content_of(chat[-1]).strip(), chat[:-1]
        earlier, value = parted(chat[-1:] if source.ignore_earlier_turns else chat)
    if source.system_prompt and not (earlier and earlier[0]["role"] == "system"):
        earlier = [{"role": "system", "content": source.system_prompt}, *earlier]
    question = text_of_value(value, "question").strip()
    if source.user_template is not None:
        question = source.user_template.replace("{problem}", question)
    return earlier, question, reply


def answer_at(columns: dict[str, object], source: RowsSource) -> str:
    """The text of the first answer column that the row has; "" without one.

    A list of a single answer is that answer, and so is a chat of a single turn.
    """
    for path in source.answer_fields:
        value = value_at(columns, path)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
            if isinstance(value, dict) and role_of(value):
                value = content_of(value)
        if is_gap(value) or not (source.needs_answer or is_written(value)):
            continue
        return text_of_value(value, "answer")
    return ""


def text_of_value(value: object, what: str) -> str:
    """A column's value as the text in the data.

    Raises:
        UnfitRow: there is none, or it is neither text nor a number.
    """
    if is_gap(value) or (what == "question" and value != value):
        raise UnfitRow(f"no {what}")
    if isinstance(value, WRITTEN):
        return as_text(value)
    raise UnfitRow(f"{what} is a {type(value).__name__}, {NOT_TEXT}")


def is_gap(value: object) -> bool:
    return value in (None, MISSING) or (isinstance(value, str) and not value.strip())


def is_written(value: object) -> bool:
    """Whether a value is text or a number, and no NaN, a table's mark of a missing one."""
    return isinstance(value, WRITTEN) and value == value


def metadata_of(columns: dict[str, object], source: RowsSource) -> JsonObject:
    """The further columns that the recipe keeps, as plain values.

    Raises:
        UnfitRow: they are larger than the source's `max_metadata_kib`.
    """
    if source.metadata_fields == "all":
        kept = {key: value for key, value in columns.items() if key != source.question_field}
    else:
        found = {key: value_at(columns, key) for key in source.metadata_fields}
        kept = {key: value for key, value in found.items() if value not in (None, MISSING)}
    metadata: JsonObject = plain(kept)
    if kept and len(json.dumps(metadata)) > source.max_metadata_kib * 1024:
        raise UnfitRow("with more metadata than max_metadata_kib")
    return metadata


def value_at(columns: JsonObject, path: str) -> Any:
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


def plain(value: object) -> Any:
    """The value as plain values of JSON: Python's numbers, and dates and the like as text."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


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
        by_format = COLUMNS[source.format]
        named: dict[str, list[str | None]] = {
            "question_field": [source.question_field],
            "answer_field": [*source.answer_fields],
            "domain_field": [source.domain_field],
            "solution_field": [source.solution_field],
        }
        if source.domain_field == by_format.get("domain_field"):
            del named["domain_field"]
        has_replies = source.format == "messages" or not source.needs_answer
        if has_replies and source.answer_field == by_format.get("answer_field", "answer"):
            del named["answer_field"]
        unseen = [(key, [path for path in paths if path]) for key, paths in named.items()]
        if source.metadata_fields != "all":
            unseen += [("metadata_fields", [column]) for column in source.metadata_fields]
        unseen += [("where", [column]) for column in source.where]
        self.unseen = [(key, paths) for key, paths in unseen if paths]
        self.names: dict[str, None] = {}  # of the first rows
        self.num_rows = 0

    def look_at(self, columns: dict[str, object]) -> None:
        if self.num_rows < NAMED_ROWS:
            self.names.update(dict.fromkeys(column_names(columns)))
        self.num_rows += 1
        if self.unseen:
            self.unseen = [
                (key, paths)
                for key, paths in self.unseen
                if all(value_at(columns, path) is MISSING for path in paths)
            ]

    def refuse_missing(self, where: str) -> None:
        """Raise DataError if a column of the recipe is in no row."""
        if not self.num_rows or not self.unseen:
            return
        key, paths = self.unseen[0]
        near = [found for path in paths for found in difflib.get_close_matches(path, self.names, 1)]
        hint = f" Did you mean {near[0]}?" if near else ""
        without = ", or needs_answer: false if no check compares with an answer"
        raise DataError(
            f"{where} has no column {' or '.join(map(repr, paths))} ({key}).{hint} Its columns: "
            f"{', '.join(self.names) or 'none'}. Set {key} to one of them in the recipe"
            f"{without if key == 'answer_field' else ''}."
        )


def column_names(columns: dict[str, object], prefix: str = "") -> list[str]:
    """All names that `value_at` accepts, without list items."""
    names = []
    for key, value in columns.items():
        name = f"{prefix}{key}"
        names += column_names(value, f"{name}.") if isinstance(value, dict) and value else [name]
    return names
