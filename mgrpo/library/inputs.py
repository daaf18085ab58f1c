"""Data of the calling program as a section of a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from mgrpo.errors import DataError
from mgrpo.records.json_object import JsonObject

Row = Mapping[str, Any]


class RowsLike(Protocol):
    """A `datasets.Dataset`, a pandas DataFrame's `to_dict("records")`, a list: rows in turn."""

    def __iter__(self) -> Any: ...


Data = str | Path | Row | RowsLike


def data_section(data: Data, name: str, folder: Path) -> JsonObject:
    """The section data.train or data.heldout for what a caller gave.

    Args:
        data: a file or folder, a hub name, rows, or the section itself.
        name: "train" or "heldout"; of the file that rows are written to.
        folder: of that file.

    Raises:
        DataError: it is none of these, or a row cannot be written as JSON.
    """
    if isinstance(data, str | Path):
        return {"path": str(data)}
    if isinstance(data, Mapping) and not hasattr(data, "column_names"):
        if "train" in data and "source" not in data:
            raise DataError(
                f"{name}: a mapping of splits ({', '.join(map(str, data))}). Give one of them: "
                f'data["train"].'
            )
        return dict(data)
    file = folder / f"{name}.jsonl"
    write_rows(data, file, name)
    return {"path": str(file)}


def write_rows(rows: Iterable[object], file: Path, name: str) -> None:
    """Write rows as JSON Lines; the file appears only once it is complete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    number = 0
    with unfinished.open("w", encoding="utf-8") as stream:
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, Mapping):
                raise DataError(
                    f"{name}: row {number} is a {type(row).__name__}, not a dict of columns. Give "
                    "rows such as {'question': 'What is 3 + 4?', 'answer': '7'}."
                )
            try:
                stream.write(json.dumps(dict(row), ensure_ascii=False) + "\n")
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"{name}: row {number} cannot be written as JSON: {error}."
                ) from error
    if not number:
        raise DataError(f"{name}: there are no rows.")
    unfinished.replace(file)
