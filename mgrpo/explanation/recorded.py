"""Reads recorded completions: JSON lines as runs and evaluations write them, or one JSON array."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mgrpo.errors import DataError
from mgrpo.metrics.rows import reason_of
from mgrpo.types import Completion

STEP_FILE = re.compile(r"step-(\d+)\.jsonl")
FORM = (
    "Give completions as a run's rollouts/step-NNNNNN.jsonl or `mgrpo eval --save-completions` "
    "has them: one JSON object a line, or a JSON array of them."
)

Measurements = dict[str, dict[str, list[float]]]  # by completion_id, then by the measurement's name
MEASUREMENTS = TypeAdapter(dict[str, list[float]])


@dataclass(frozen=True, slots=True)
class Recorded:
    """A file's completions, with token measurements from rows with `measurements`."""

    completions: list[Completion]
    measurements: Measurements


def read_recorded(path: Path) -> Recorded:
    """Every completion of a file.

    A row may hold, beside the fields of `Completion`, `measurements`: {"entropies": [T], ...}.

    Raises:
        DataError: there is no such file, or it does not contain completions.
    """
    completions: list[Completion] = []
    measurements: Measurements = {}
    for place, row in enumerate(read_rows(path), start=1):
        where = f"{path}, completion {place}"
        if not isinstance(row, dict):
            raise DataError(f"{where} is {str(row)[:60]!r}, not an object. {FORM}")
        fields = {name: value for name, value in row.items() if name != "measurements"}
        try:
            one = Completion.from_json(fields)
            measured = MEASUREMENTS.validate_python(row.get("measurements") or {})
        except (DataError, ValidationError) as error:
            raise DataError(f"{where} is not a completion: {error}. {FORM}") from error
        completions.append(one)
        if measured:
            measurements[one.completion_id] = measured
    if not completions:
        raise DataError(f"{path} holds no completions. {FORM}")
    return Recorded(completions, measurements)


def read_rows(path: Path) -> list[object]:
    """The rows of either format, which the first character shows."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}. {FORM}") from error
    if text.lstrip().startswith("["):
        rows = parsed(text, str(path))
        assert isinstance(rows, list), "a JSON text that begins with [ is an array"
        return rows
    lines: Sequence[str] = text.splitlines()
    return [
        parsed(line, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def parsed(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where} is not JSON ({reason_of(error)}): {text[:60]!r}. {FORM}"
        ) from error


def step_of(path: Path) -> int:
    """The step of a run's file, from its name; 0 for another file."""
    found = STEP_FILE.fullmatch(path.name)
    return int(found.group(1)) if found else 0
