"""Problems that were read before, kept in a folder and found again while their files are the same.

    $MGRPO_CACHE/data, or ~/.cache/mgrpo/data
        SOURCE/            one source of a recipe, by its keys and the code that reads rows
            FILES.problems     the problems, one after the other
            FILES.npz          where each begins, and which rows are unusable
            FILES-PROMPTS.npz  the same of those whose prompts fit, and the longest of them

FILES stands for the paths, sizes and times of the data files, PROMPTS for the tokenizer and the
prompt. What is kept of other versions of the files is deleted when they are read again.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np

import mgrpo.types
from mgrpo.config.data import DataSource, RowsSource, sources_in
from mgrpo.data.formats import rows
from mgrpo.data.formats.places import local_paths
from mgrpo.data.formats.rows import LoadedData
from mgrpo.data.progress import Note
from mgrpo.data.store import BUFFER_BYTES, StoredProblems
from mgrpo.errors import DataError
from mgrpo.models.catalog import cache_dir
from mgrpo.records.json_object import JsonObject
from mgrpo.storage.run_lock import try_flock
from mgrpo.types import Problem

PROBLEMS, INDEX = ".problems", ".npz"


class KeptData:
    """What is kept of one version of a source's files.

    Example:
        kept = KeptData.of(source)
        data = kept.read_or(lambda into: load_rows(source, into, note), note)
    """

    def __init__(self, folder: Path, files_key: str) -> None:
        self.folder, self.files_key = folder, files_key

    @classmethod
    def of(cls, source: DataSource) -> KeptData | None:
        """None: the source is read into memory, or not of files of this machine alone."""
        given = sources_in(source)
        if not any(isinstance(one, RowsSource) and one.on_disk for one in given):
            return None
        files = [files_of(one) if isinstance(one, RowsSource) else [] for one in given]
        if not all(files):
            return None
        facts = [facts_of(file) for some in files for file in some]
        named = key_of([source.model_dump(mode="json"), str(Path.cwd()), code_key()])
        return cls(data_dir() / named, key_of(facts))

    def read_or(self, read: Callable[[StoredProblems], LoadedData], note: Note) -> LoadedData:
        """The problems as they are kept, or as `read` puts them into what is given to it.

        Raises:
            DataError: the folder cannot be written.
        """
        found = self.load("")
        if found is not None:
            note(f"{len(found.problems):,} problems as they were read before ({self.folder})")
            return found
        with self.only_writer() as is_writer:
            if not is_writer:
                note(f"another process writes to {self.folder}: using a temporary file")
                return read(StoredProblems())
            for old in self.folder.glob("*.*"):
                old.unlink(missing_ok=True)
            data = read(StoredProblems(self.problems_file.open("w+b", buffering=BUFFER_BYTES)))
            self.save("", data)
            return data

    def load(self, prompts_key: str) -> LoadedData | None:
        """The problems, or those of them that fit; None: they are not kept."""
        index = self.index_file(prompts_key)
        if not (index.is_file() and self.problems_file.is_file()):
            return None
        with np.load(index) as arrays:
            facts: JsonObject = json.loads(str(arrays["facts"]))
            problems = StoredProblems(
                self.problems_file.open("rb"),
                array("q", arrays["starts"].tobytes()),
                array("i", arrays["sizes"].tobytes()),
                facts["fingerprint"],
            )
        return LoadedData(
            problems=problems,
            num_dropped=Counter(facts["num_dropped"]),
            examples=facts["examples"],
            longest=[(tokens, Problem(**one)) for tokens, one in facts["longest"]] or None,
        )

    def save(self, prompts_key: str, data: LoadedData, fingerprint: str = "") -> None:
        """Keep an index of problems that are in `problems_file`, whole or not at all."""
        problems = data.problems
        if not isinstance(problems, StoredProblems) or problems.file.name != str(
            self.problems_file
        ):
            return  # they are in a temporary file
        problems.flush()
        facts = {
            "fingerprint": fingerprint,
            "num_dropped": data.num_dropped,
            "examples": data.examples,
            "longest": [(tokens, asdict(one)) for tokens, one in data.longest or ()],
        }
        index = self.index_file(prompts_key)
        unfinished = index.with_suffix(f".{os.getpid()}")
        with self.saying_where(), unfinished.open("wb") as file:
            np.savez(
                file,
                starts=np.frombuffer(problems.starts, dtype=np.int64),
                sizes=np.frombuffer(problems.sizes, dtype=np.int32),
                facts=json.dumps(facts),
            )
        with suppress(FileNotFoundError):  # another process has just read a newer version
            unfinished.replace(index)

    @property
    def problems_file(self) -> Path:
        return self.folder / f"{self.files_key}{PROBLEMS}"

    def index_file(self, prompts_key: str) -> Path:
        parts = filter(None, (self.files_key, prompts_key))
        return self.folder / f"{'-'.join(parts)}{INDEX}"

    @contextmanager
    def only_writer(self) -> Iterator[bool]:
        """Whether no other process writes to the folder, until the end."""
        with self.saying_where():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                yield try_flock(descriptor) is True
            finally:
                os.close(descriptor)

    @contextmanager
    def saying_where(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"The data of a source with on_disk: true are kept in {self.folder}, which cannot "
                f"be written: {error.strerror or error}. Set MGRPO_CACHE to a folder with room for "
                "them, or leave on_disk out."
            ) from error


def data_dir() -> Path:
    """Where problems are kept."""
    chosen = os.environ.get("MGRPO_CACHE")
    return cache_dir() / "data" if chosen else cache_dir().parent / "data"


def files_of(source: RowsSource) -> list[Path]:
    """The files that a source's rows come from; none if they are of the hub."""
    return [
        file
        for path in local_paths(source.path)
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if file.is_file()
    ]


def facts_of(file: Path) -> Sequence[object]:
    """What changes with a file's content."""
    stat = file.stat()
    return str(file.resolve()), stat.st_size, stat.st_mtime_ns


@cache
def code_key() -> str:
    """Changes with the code that makes problems of rows."""
    files = [*sorted(Path(str(rows.__file__)).parent.glob("*.py")), Path(mgrpo.types.__file__)]
    return key_of([file.read_text(encoding="utf-8") for file in files])


def key_of(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
