"""Rows of local files: JSON Lines, a JSON list, CSV, Parquet and Arrow, compressed or not.

Values are read as they are written: no number is rounded, no leading zero lost, no "NA" read as
missing, since an answer is compared with the file's text. An unreadable row is returned with the
reason, so that it is counted with its position.
"""

from __future__ import annotations

import bz2
import csv
import difflib
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import IO, Any

from mgrpo.data.formats.arrow import plain_rows
from mgrpo.errors import DataError

COMPRESSIONS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
"""How files that begin so are opened."""
ZIP_MAGIC = b"PK\x03\x04"
TEXT_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
DATA_SUFFIXES = (*TEXT_SUFFIXES, ".parquet", ".arrow")
PACKED_SUFFIXES = (".gz", ".bz2", ".xz")
DELIMITERS = ",;\t|"
MAX_CSV_FIELD = 2**31 - 1  # characters; the module's own bound of 131,072 is an error for all rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a file."""

    value: Any  # a dict of its columns, if it is valid
    where: str  # "line 4": its position, for messages
    number: int  # its position in the file, from 1
    stem: str  # the file's name without suffixes
    fault: str = ""  # why it cannot be read


def has_data_suffix(path: Path) -> bool:
    """Whether the name is that of a file of rows, compressed or not."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in DATA_SUFFIXES


def files_of(folder: Path, pattern: str = "*") -> list[Path]:
    """The data files of a folder that match a pattern ("*.parquet", "**/*.jsonl"), by their names.

    Raises:
        DataError: there is none.
    """
    found = sorted(
        file
        for file in folder.glob(pattern)
        if file.is_file() and has_data_suffix(file) and file.name[0] not in "._"
    )
    if not found:
        inside = "" if pattern == "*" else f" that matches {pattern}"
        raise DataError(
            f"The folder {folder} contains no data file{inside}. Supported suffixes: "
            f"{', '.join(DATA_SUFFIXES)}. Files of folders inside it match {folder}/**/*."
        )
    return found


def read_files(files: Iterable[Path], folder: Path) -> Iterator[Row]:
    """The rows of several files of a folder, one after the other."""
    for file in files:
        name = file.relative_to(folder).as_posix()
        for row in read_file(file):
            yield replace(row, where=f"{name} {row.where}", stem=printable(name))


def read_file(file: Path) -> Iterator[Row]:
    """The rows of one file, in the format given by its first bytes and its name."""
    name = file.with_suffix("") if file.suffix.lower() in PACKED_SUFFIXES else file
    for value, where, number, fault in parsed(file):
        stem = printable(name.stem)
        yield Row(value=value, where=where, number=number, stem=stem, fault=fault)


def printable(stem: str) -> str:
    return stem.replace("#", "_")  # "#" parts a problem's id from its completions'


Parsed = tuple[Any, str, int, str]  # value, where, number, fault


def parsed(file: Path) -> Iterator[Parsed]:
    try:
        with file.open("rb") as stream:
            magic = stream.read(8)
        if magic.startswith(ZIP_MAGIC):
            raise DataError(
                f"{file} is a zip archive or a spreadsheet. Unpack it, or save the sheet as CSV in "
                "UTF-8."
            )
        for head, batches_of in TABLES.items():
            if magic.startswith(head):
                yield from read_table(file, batches_of)
                return
        unpack = next(
            (opener for head, opener in COMPRESSIONS.items() if magic.startswith(head)), None
        )
        with unpack(file) if unpack else file.open("rb") as stream:
            name = file.with_suffix("") if unpack else file
            if name.suffix.lower() in (".csv", ".tsv"):
                yield from read_csv(stream, file)
            else:
                yield from read_json(stream)
    except FileNotFoundError as error:
        raise DataError(missing_file(file)) from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{file} cannot be read: {reason}.") from error


def read_table(file: Path, batches_of: Callable[[Path], Iterable[Any]]) -> Iterator[Parsed]:
    """The rows of a file of Arrow tables."""
    import pyarrow  # takes 0.2 s, and is only needed here

    number = 0
    try:
        for batch in batches_of(file):
            batch.validate(full=True)  # values of a damaged file may lie outside of it
            for row in plain_rows(batch):
                number += 1
                yield row, f"row {number}", number, ""
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(
            f"{file} cannot be read beyond row {number}: {' '.join(str(error).split())}"
        ) from error


def parquet_batches(file: Path) -> Iterable[Any]:
    from pyarrow import parquet

    return parquet.ParquetFile(file).iter_batches(batch_size=1000)


def arrow_file_batches(file: Path) -> Iterable[Any]:
    from pyarrow import ipc, memory_map

    reader = ipc.open_file(memory_map(str(file)))
    return (reader.get_batch(index) for index in range(reader.num_record_batches))


def arrow_stream_batches(file: Path) -> Iterable[Any]:
    from pyarrow import ipc, memory_map

    return ipc.open_stream(memory_map(str(file)))


TABLES = {
    b"PAR1": parquet_batches,
    b"ARROW1": arrow_file_batches,
    b"\xff\xff\xff\xff": arrow_stream_batches,  # what the `datasets` library saves
}
"""Readers of tables, by their files' first bytes."""


def read_json(stream: IO[bytes]) -> Iterator[Parsed]:
    """One object per line; or one JSON value over several lines, usually a list of objects."""
    numbered = ((number, line) for number, line in enumerate(stream, start=1) if line.strip())
    first = next(numbered, None)
    if first is None:
        return
    lines: Iterator[tuple[int, bytes]] = chain([first], numbered)
    if not is_object(first[1]):
        held = list(lines)
        try:
            value = loads(b"".join(line for _, line in held))
        except (ValueError, RecursionError):
            lines = iter(held)  # JSON lines, with an invalid first line
        else:
            rows = value if isinstance(value, list) else [value]
            for number, row in enumerate(rows, start=1):
                yield row, f"item {number}", number, ""
            return
    for number, line in lines:
        try:
            yield loads(line), f"line {number}", number, ""
        except UnicodeDecodeError:
            yield None, f"line {number}", number, "not UTF-8 text"
        except (ValueError, RecursionError):
            yield None, f"line {number}", number, "not JSON"


def loads(text: bytes) -> object:
    """Parse with exact decimal numbers: 18.0 stays 18.0, and no digit is lost."""
    return json.loads(text.decode("utf-8-sig"), parse_float=Decimal)


def is_object(line: bytes) -> bool:
    try:
        return isinstance(loads(line), dict)
    except (ValueError, RecursionError):
        return False


def read_csv(stream: IO[bytes], file: Path) -> Iterator[Parsed]:
    """Every value as text. The first line names the columns."""
    csv.field_size_limit(MAX_CSV_FIELD)
    lines = (line.decode("utf-8-sig") for line in stream)
    try:
        header = next(lines, "")
        delimiter = max(DELIMITERS, key=header.count)  # the comma, where there is none
        columns = [name.strip() for name in header_of(header, delimiter, file)]
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        number = 1
        while True:
            first_line = reader.line_num + 2
            where = f"line {first_line}"
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "end of data" in str(error):
                    raise DataError(
                        f"{file} is incomplete: a quotation mark opens in line {first_line} and is "
                        "never closed."
                    ) from error
                yield None, where, number, f"not CSV, {error}"
            else:
                if not values:
                    continue
                if len(values) != len(columns):
                    fault = f"not {len(columns)} columns (a comma may lack quotes)"
                    yield None, where, number, fault
                else:
                    yield dict(zip(columns, values, strict=True)), where, number, ""
            number += 1
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not UTF-8 text: {error.reason}. Save it as UTF-8 (from a spreadsheet, "
            '"CSV UTF-8").'
        ) from error


def header_of(line: str, delimiter: str, file: Path) -> list[str]:
    """The values of the first line."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error as error:
        raise DataError(
            f"{file}: the first line, which names the columns, is not CSV: {error}. Lines end with "
            "LF or CR LF, not with CR alone."
        ) from error


def missing_file(file: Path) -> str:
    folder = file.parent
    if file.is_symlink():
        return f"{file} is a link to {file.readlink()}, which does not exist."
    if not folder.is_dir():
        return (
            f"There is no file {file}: the folder {folder} does not exist. Paths are relative to "
            f"the current folder, {Path.cwd()}."
        )
    near = difflib.get_close_matches(file.name, [f.name for f in folder.iterdir()], n=1)
    hint = f" Did you mean {folder / near[0]}?" if near else ""
    return f"There is no file {file}.{hint} Paths are relative to the current folder, {Path.cwd()}."
