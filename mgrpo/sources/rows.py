"""From a row of data to a Problem, with the unusable rows counted by reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mgrpo.config.data import HuggingFaceSource, JsonlSource
from mgrpo.errors import DataError
from mgrpo.types import Problem

EXAMPLES_PER_REASON = 3
FINAL_ANSWER_MARK = "####"  # GSM8K writes the solution, this mark, and the answer


@dataclass(slots=True, kw_only=True)
class LoadedData:
    """The problems of one source, and what had to be left out."""

    problems: list[Problem] = field(default_factory=list)
    num_dropped: Counter[str] = field(default_factory=Counter)  # reason -> rows
    examples: dict[str, list[str]] = field(default_factory=dict)  # reason -> where, a few each

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


def add_row(
    data: LoadedData,
    row: Any,
    source: JsonlSource | HuggingFaceSource,
    *,
    problem_id: str,
    where: str,
) -> None:
    """Append the row's problem to `data`, or count why it has none."""
    if not isinstance(row, dict):
        data.drop("not a JSON object", where)
        return
    values = {}
    for column, key in (("question", source.question_field), ("answer", source.answer_field)):
        value = row.get(key)
        if value is None or (isinstance(value, str) and not value.strip()):
            data.drop(f"no {column}", where)
            return
        if not isinstance(value, str | int | float):
            data.drop(f"{column} is a {type(value).__name__}, not text or a number", where)
            return
        values[column] = str(value)
    domain = row.get(source.domain_field) if source.domain_field else None
    data.problems.append(
        Problem(
            problem_id=problem_id,
            question=values["question"].strip(),
            answer=final_answer(values["answer"]),
            domain="default" if domain is None else str(domain),
            solution=worked_solution(row, values["answer"], source.solution_field),
            metadata={key: row[key] for key in source.metadata_fields if row.get(key) is not None},
        )
    )


def final_answer(text: str) -> str:
    """The answer itself: what follows the last "####" where there is one, as in GSM8K."""
    return text.rpartition(FINAL_ANSWER_MARK)[2].strip()


def worked_solution(row: dict[str, Any], answer: str, field: str | None) -> str:
    """The row's solution: its own column, or what stands before the last "####" of the answer."""
    if field is not None:
        return str(row.get(field) or "").strip()
    return answer.rpartition(FINAL_ANSWER_MARK)[0].strip()


def check_columns(
    columns: list[str], source: JsonlSource | HuggingFaceSource, *, where: str
) -> None:
    """Raise DataError where a column that the recipe names is in no row."""
    named = [
        (key, getattr(source, key))
        for key in ("question_field", "answer_field", "domain_field", "solution_field")
    ]
    for key, column in [*named, *(("metadata_fields", one) for one in source.metadata_fields)]:
        if column is not None and column not in columns:
            raise DataError(
                f"{where} has no column {column!r} ({key}). Its columns: "
                f"{', '.join(columns) or 'none'}. Set {key} to one of them in the recipe."
            )
