"""The forms of the lines in a run's files, by which readers refuse what no run has written.

They list what readers use; a line may hold more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import (
    BaseModel,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
)

from mgrpo.errors import RunDirectoryError
from mgrpo.records.json_object import JsonObject

Row = JsonObject
"""One line of a run's files, by name."""
Number = FiniteFloat | None
"""None: it was not measured, or is not finite."""
Share = Annotated[FiniteFloat, Field(ge=0, le=1)] | None
LowestHighest = Annotated[list[Share], Field(min_length=2, max_length=2)]


class Form(BaseModel, extra="allow", strict=True):
    """Base of what a line must have."""


class Transition(Form):
    layer: PositiveInt
    wrong_to_right: Number = None
    right_to_wrong: Number = None
    right_to_right: Number = None
    wrong_to_wrong: Number = None
    copy_fraction: Number = None


class Phrase(Form):
    index: int
    acc: list[Share]


class DomainAccuracy(Form):
    num_problems: NonNegativeInt
    acc: list[Share]


class EvaluationForm(Form):
    """A line of evaluation.jsonl."""

    step: NonNegativeInt
    label: str
    num_problems: NonNegativeInt = 0
    acc: list[Share] = Field(min_length=1)
    acc_range: list[LowestHighest | None] = []
    delta: Number = None
    transitions: list[Transition] = []
    phrases: list[Phrase] = []
    domains: dict[str, DomainAccuracy] = {}


class AlarmForm(Form):
    """A line of alarms.jsonl."""

    step: NonNegativeInt
    first_step: int
    name: str
    layer: PositiveInt | None
    action: str
    message: str
    seen: str
    meaning: str
    advice: str


class StepForm(Form):
    """A line of metrics.jsonl."""

    step: NonNegativeInt
    __pydantic_extra__: dict[str, Number]


class AnswerForm(Form):
    """A line of heldout/step-N.jsonl."""

    problem_id: str
    occurrence: int
    acc: list[Share]


def read_lines(path: Path, form: type[Form] = Form) -> list[Row]:
    """Every object of a JSON Lines file, without a truncated last line; [] if there is no file.

    Raises:
        RunDirectoryError: it is no file, or a line before the last one is not of the form.
    """
    lines = text_of(path).split("\n")
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            form.model_validate(row)
        except (ValueError, RecursionError) as error:
            if number == len(lines):  # no newline after it: the writer was cut off
                break
            raise RunDirectoryError(
                f"{path}, line {number} is not {form_name(form)} ({reason_of(error)}): "
                f"{line[:80]!r}. Another program wrote to this file; remove the line to continue."
            ) from error
        rows.append(row)
    return rows


def text_of(path: Path) -> str:
    """A file's text, with what is no UTF-8 replaced; "" if there is none.

    Raises:
        RunDirectoryError: it is no file, or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be read: {error.strerror}.") from error


def form_name(form: type[Form]) -> str:
    return "an object of JSON" if form is Form else (form.__doc__ or "").rstrip(".").lower()


def reason_of(error: Exception) -> str:
    """The first thing that is wrong with a value, in a line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(map(str, first["loc"]))
        return f"{path}: {first['msg']}" if path else first["msg"]
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
