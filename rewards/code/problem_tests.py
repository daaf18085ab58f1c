"""The tests of a problem, in our form and in those of other data sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mgrpo.records.json_object import JsonObject
from mgrpo.types import Problem
from rewards.code.inside import plain
from rewards.code.sandbox import Answer

FORMS = (
    '[{"input": "1 2\\n", "output": "3\\n"}, ...] or [{"function": "add", "arguments": [1, 2], '
    '"output": 3}, ...], or as APPS has them: {"inputs": [...], "outputs": [...], "fn_name": "add"}'
)


@dataclass(frozen=True, slots=True)
class ProgramTest:
    """One run of a program, and what is right."""

    asked: Mapping[str, Any]  # {"stdin": text} or {"function": name, "arguments": [...]}
    expected: Any  # text, or data

    @property
    def is_call(self) -> bool:
        return "function" in self.asked

    @property
    def shown_input(self) -> str:
        if not self.is_call:
            return str(self.asked["stdin"])
        arguments = ", ".join(map(repr, self.asked["arguments"]))
        return f"{self.asked['function']}({arguments})"

    def passes(self, answer: Answer, *, tolerance: float) -> bool:
        """Compared here, outside of the sandbox."""
        if answer.end != "exit 0" or answer.is_cut:
            return False
        if not self.is_call:
            return same_text(answer.out, self.expected, tolerance=tolerance)
        try:
            return same_value(json.loads(answer.value), plain(self.expected), tolerance=tolerance)
        except (ValueError, TypeError, RecursionError):
            return False


def read_tests(problem: Problem, column: str) -> list[ProgramTest]:
    """The problem's tests: of a column that `metadata_fields` names, else its answer.

    Raises:
        ValueError: there are none, or not in a known form.
    """
    given = problem.metadata.get(column, problem.answer)
    try:
        value = json.loads(given) if isinstance(given, str) else given
        tests = of_columns(value) if isinstance(value, dict) else [of_row(one) for one in value]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{problem.problem_id} has no tests in {column!r} that can be read "
            f"({type(error).__name__}: {error}). They are {FORMS}; name the column in the source's "
            "metadata_fields"
        ) from error
    if not tests:
        raise ValueError(f"{problem.problem_id} has no test in {column!r}")
    return tests


def of_columns(value: JsonObject) -> list[ProgramTest]:
    """The form of APPS and TACO (arXiv 2105.09938): lists of inputs and outputs."""
    name = value.get("fn_name")
    pairs = zip(value["inputs"], value["outputs"], strict=True)
    if name is not None:
        return [
            ProgramTest({"function": name, "arguments": list(one)}, right) for one, right in pairs
        ]
    return [ProgramTest({"stdin": text_of(one)}, text_of(right)) for one, right in pairs]


def of_row(row: JsonObject) -> ProgramTest:
    if "function" in row:
        asked = {"function": str(row["function"]), "arguments": list(row["arguments"])}
        return ProgramTest(asked, row["output"])
    if row.get("testtype", "stdin") != "stdin":
        raise ValueError(f"testtype {row['testtype']!r} is not stdin")
    return ProgramTest({"stdin": text_of(row["input"])}, text_of(row["output"]))


def text_of(value: object) -> str:
    """A text, or its lines."""
    if isinstance(value, list):
        return "\n".join(map(str, value)) + "\n"
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


def same_text(given: str, right: str, *, tolerance: float) -> bool:
    """Line by line, without spaces at the ends of lines and empty lines at the end; decimals may
    differ by the tolerance."""
    ours, theirs = ([line.rstrip() for line in one.rstrip().split("\n")] for one in (given, right))
    if len(ours) != len(theirs):
        return False
    return all(
        one == other or same_words(one.split(), other.split(), tolerance)
        for one, other in zip(ours, theirs, strict=True)
    )


def same_words(given: list[str], right: list[str], tolerance: float) -> bool:
    if len(given) != len(right):
        return False
    return all(
        one == other or ("." in other and same_numbers(one, other, tolerance))
        for one, other in zip(given, right, strict=True)
    )


def same_numbers(given: str, right: str, tolerance: float) -> bool:
    try:
        return close(float(given), float(right), tolerance)
    except ValueError:
        return False


def same_value(given: Any, right: Any, *, tolerance: float) -> bool:
    """Of JSON's data. A truth value is no number."""
    if isinstance(given, bool) or isinstance(right, bool):
        return given is right
    if isinstance(given, float) or isinstance(right, float):
        numbers = isinstance(given, int | float) and isinstance(right, int | float)
        return numbers and close(given, right, tolerance)
    if isinstance(given, list) and isinstance(right, list):
        return len(given) == len(right) and all(
            same_value(one, other, tolerance=tolerance)
            for one, other in zip(given, right, strict=True)
        )
    if isinstance(given, dict) and isinstance(right, dict):
        return given.keys() == right.keys() and all(
            same_value(given[key], right[key], tolerance=tolerance) for key in right
        )
    return bool(type(given) is type(right) and given == right)


def close(given: float, right: float, tolerance: float) -> bool:
    return abs(given - right) <= tolerance * max(1.0, abs(right))
