"""Problems from a local file of rows, or a folder of such files."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from mgrpo.config.data import JsonlSource
from mgrpo.data.formats.files import read_files
from mgrpo.data.formats.rows import LoadedData, problems_of


def load_jsonl(source: JsonlSource) -> LoadedData:
    """The file's problems; an unusable row is counted with its position.

    Raises:
        DataError: the file is missing, unreadable or empty, or lacks a column.
    """
    path = Path(source.path).expanduser()
    return problems_of(islice(read_files(path), source.max_rows), source, where=str(path))
