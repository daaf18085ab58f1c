"""Where rows come from: a file, a folder, a pattern, a saved data set, or the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mgrpo.config.data import RowsSource
from mgrpo.data.formats.files import Row, files_of, has_data_suffix, read_file, read_files
from mgrpo.data.formats.huggingface import SAVED_SET, SAVED_SPLITS, missing_path, split_rows
from mgrpo.errors import DataError

HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")  # "gsm8k", "openai/gsm8k"
PATTERN = re.compile(r"[*?\[]")


def rows_at(source: RowsSource) -> Iterator[Row]:
    """The rows at a source's path, in a fixed order.

    Raises:
        DataError: there is nothing, it cannot be read, or it has no such split.
        HubUnreachable: its hub does not answer, and it is not in the cache.
    """
    path = Path(source.path).expanduser()
    if path.is_file():
        refuse_splits(source, "a single file")
        return read_file(path)
    if path.is_dir():
        is_saved = any((path / name).is_file() for name in (SAVED_SET, SAVED_SPLITS))
        if is_saved or source.split or source.subset:
            return split_rows(source)
        return read_files(files_of(path), path)
    if PATTERN.search(source.path):
        refuse_splits(source, "a pattern of files")
        folder, pattern = split_pattern(path)
        if not folder.is_dir():
            raise DataError(missing_path(folder))
        return read_files(files_of(folder, pattern), folder)
    if is_local_path(source.path):
        raise DataError(missing_path(path))
    return split_rows(source)


def local_paths(path: str) -> list[Path]:
    """The files and folders here that a source's path stands for; none if it is of the hub."""
    found = Path(path)
    if found.exists():
        return [found]
    return files_of(*split_pattern(found)) if PATTERN.search(path) else []


def split_pattern(path: Path) -> tuple[Path, str]:
    """The folder before the first part with a wildcard, and the rest."""
    first = next(place for place, part in enumerate(path.parts) if PATTERN.search(part))
    return Path(*path.parts[:first]), "/".join(path.parts[first:])


def is_local_path(path: str) -> bool:
    """Whether a text cannot be a hub name: its form is that of a file or folder."""
    return HUB_NAME.fullmatch(path) is None or has_data_suffix(Path(path))


def refuse_splits(source: RowsSource, what: str) -> None:
    for key, value, only in (("split", source.split, "train"), ("subset", source.subset, None)):
        if value not in (None, only):
            raise DataError(
                f"{source.path} is {what}, which has no {key} {value!r}: leave {key} out. "
                "max_rows reads its first rows; other splits are files of their own."
            )
