"""Problems from a JSON Lines file: one object per line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mgrpo.config.data import JsonlSource
from mgrpo.errors import DataError
from mgrpo.sources.rows import LoadedData, add_row, check_columns

EXAMPLE_LINE = '{"question": "What is 3 + 4?", "answer": "7"}'


def load_jsonl(source: JsonlSource) -> LoadedData:
    """The file's problems; a line that is no problem is counted with its number.

    Raises:
        DataError: the file is missing, unreadable or empty, or lacks a column.
    """
    file = Path(source.path).expanduser()
    data = LoadedData()
    stem = file.stem.replace("#", "_")  # "#" separates a problem's id from its completions'
    columns: dict[str, None] = {}
    rows = []
    for number, line in islice(numbered_lines(file), source.max_rows):
        where = f"line {number}"
        try:
            row: Any = json.loads(line)
        except ValueError:
            data.drop("not JSON", where)
            continue
        if isinstance(row, dict):
            columns.update(dict.fromkeys(map(str, row)))
        rows.append((row, where, f"{stem}/{number}"))
    if columns:
        check_columns(list(columns), source, where=str(file))
    for row, where, problem_id in rows:
        add_row(data, row, source, problem_id=problem_id, where=where)
    if not data.problems:
        what = data.describe_dropped() or "the file is empty"
        raise DataError(f"{file} holds no problem: {what}. Each line is like {EXAMPLE_LINE}")
    return data


def numbered_lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1."""
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line
    except FileNotFoundError as error:
        raise DataError(missing_file(file)) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text: {error.reason}. Give a .jsonl file.") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error


def missing_file(file: Path) -> str:
    folder = file.parent
    if not folder.is_dir():
        return (
            f"There is no file {file}: the folder {folder} does not exist. Paths are relative to "
            f"the folder that the command is run in, {Path.cwd()}."
        )
    near = difflib.get_close_matches(file.name, [f.name for f in folder.iterdir()], n=1)
    hint = f" Did you mean {folder / near[0]}?" if near else ""
    return (
        f"There is no file {file}.{hint} Paths are relative to the folder that the command is run "
        f"in, {Path.cwd()}."
    )
