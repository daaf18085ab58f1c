"""Shared storage at a URL: s3://, gs://, file://, memory:// and other schemes of fsspec.

    storage = Storage("s3://bucket/runs/sums", StorageConfig())
    storage.put(Path("runs/sums/metrics.jsonl"), "metrics.jsonl")

A transfer that stands still is retried, with growing pauses; its final error names the URL.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, Generic, TypeVar

from fsspec.callbacks import Callback
from fsspec.core import url_to_fs
from fsspec.registry import known_implementations

from cluster.progress_board import LOOK_S, PROGRESS_BYTES, Patience, num_io_bytes
from mgrpo.config import StorageConfig
from mgrpo.errors import StorageError
from mgrpo.records.secret_values import redacted

T = TypeVar("T")
PACKAGES = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}  # scheme -> our extra
FOR_GOOD = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Errors that a retry would not fix."""


def is_url(path: str) -> bool:
    """Whether it has the form scheme://..., for shared storage."""
    return "://" in path


def scheme_of(url: str) -> str:
    return url.partition("://")[0].lower()


def leaves_its_folder(name: str) -> bool:
    """Whether a file's relative name leads out of the folder that it is relative to."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


class Storage:
    """The files under one URL, named by their paths relative to it."""

    def __init__(self, url: str, config: StorageConfig) -> None:
        """No request is sent yet.

        Raises:
            StorageError: no such scheme, the package for it is not installed, or the URL has a
                password in it, which would be in messages and in names of folders.
        """
        if redacted(url) != url:
            scheme = scheme_of(url).upper()
            raise StorageError(
                f"{url} holds a secret, which would be in messages and in names of folders. Give "
                f"the URL without it, and the secret by the storage's own environment variable or "
                f"FSSPEC_{scheme}_<OPTION>, such as FSSPEC_{scheme}_PASSWORD."
            )
        self.url, self.config = url.rstrip("/"), config
        self.num_moves = 0
        options = dict(config.options)
        if scheme_of(url) in ("file", "local"):
            options.setdefault("auto_mkdir", True)
        else:
            # A cached listing would hide another process's checkpoints.
            options.setdefault("use_listings_cache", False)
        try:
            self.files, self.root = url_to_fs(self.url, **options)
        except ImportError as error:
            raise StorageError(missing_package(url)) from error
        except (ValueError, TypeError) as error:
            known = ", ".join(f"{scheme}://" for scheme in ("s3", "gs", "file", "memory"))
            raise StorageError(
                f"{url} cannot be used as storage: {error}. Known schemes are {known} and the "
                "others of fsspec; output.storage.options must suit the scheme."
            ) from error

    def __reduce__(self) -> tuple[object, ...]:
        return Storage, (self.url, self.config)

    def below(self, name: str) -> Storage:
        """The storage of a folder in this one."""
        return Storage(self.url_of(name), self.config)

    def url_of(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    # The progress of its transfers; see `cluster.progress_board.Counter`.

    def count(self) -> int:
        """How often so far a file, or a MiB of one, was seen to move."""
        return self.num_moves

    def said(self) -> str:
        return "Nothing was moved in that time."

    def put(self, local: Path, name: str) -> None:
        """Upload one file."""
        size = local.stat().st_size
        self._try(
            "write",
            name,
            lambda moved: self.files.put_file(str(local), self._path(name), callback=moved),
        )
        stored = self._try("look at", name, lambda _: self.files.size(self._path(name)))
        if stored < size:  # more is correct: a metrics file may have grown meanwhile
            raise StorageError(
                f"{self.url_of(name)} has {stored} bytes after {size} were written to it. Another "
                "process may be writing there: give this run another runs_dir or name."
            )

    def get(self, name: str, local: Path) -> None:
        """Download one file; it appears under its name only once it is complete."""
        local.parent.mkdir(parents=True, exist_ok=True)
        unfinished = local.with_name(f"{local.name}.unfinished")
        self._try(
            "read",
            name,
            lambda moved: self.files.get_file(self._path(name), str(unfinished), callback=moved),
        )
        unfinished.replace(local)

    def read(self, name: str) -> bytes:
        """A small file's content."""
        return bytes(self._try("read", name, lambda _: self.files.cat_file(self._path(name))))

    def find(self, folder: str = "") -> dict[str, int]:
        """Name -> bytes of every file below a folder; {} if there is none."""

        def look(_: Callback) -> dict[str, Any]:
            self.files.invalidate_cache()
            found: dict[str, Any] = self.files.find(self._path(folder), detail=True)
            return found

        try:
            found = self._try("list", folder, look)
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return {}
            raise
        start = len(self.root.rstrip("/")) + 1
        sizes = {path[start:]: int(entry["size"] or 0) for path, entry in sorted(found.items())}
        outside = [name for name in sizes if leaves_its_folder(name)]
        if outside:
            raise StorageError(
                f"{self.url} has a file named {outside[0]!r}, which would be written outside the "
                "run's folder. No run of mgrpo writes such names: somebody else did. Delete it."
            )
        return sizes

    def remove(self, name: str) -> None:
        """Delete one file; a missing one is no error."""

        def delete(_: Callback) -> None:
            with contextlib.suppress(FileNotFoundError):
                self.files.rm_file(self._path(name))

        self._try("delete", name, delete)

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def _try(self, doing: str, name: str, call: Callable[[Callback], T]) -> T:
        """Call with a deadline, and retry until it works or the attempts are used up.

        Args:
            call: tells the callback what it moves.
        """
        config, url = self.config, self.url_of(name)
        for attempt in range(1, config.attempts + 1):
            try:
                result = Transfer(self, call).result(config.deadline_s)
                self.num_moves += 1
                return result
            # The storage libraries raise many kinds of errors for a lost connection.
            except Exception as error:
                if isinstance(error, FOR_GOOD) or attempt == config.attempts:
                    raise StorageError(described(doing, url, error, attempt)) from error
            time.sleep(config.backoff_s * 2 ** (attempt - 1))
        raise AssertionError("attempts is at least 1")


class Transfer(Callback, Generic[T]):
    """One call in a thread of its own, and how much it has moved.

    File systems of clouds tell the callback; those of this machine read and write in the thread.
    """

    def __init__(self, storage: Storage, call: Callable[[Callback], T]) -> None:
        super().__init__()
        self.storage, self.num_mib = storage, 0
        self.results: list[T] = []
        self.errors: list[BaseException] = []
        self.thread = threading.Thread(target=self.work, args=(call,), name="storage", daemon=True)
        self.thread.start()

    def work(self, call: Callable[[Callback], T]) -> None:
        try:
            self.results.append(call(self))
        except BaseException as error:
            self.errors.append(error)

    def count(self) -> int:
        """Every MiB moved."""
        num_bytes = self.value + num_io_bytes(thread=self.thread.native_id)
        if num_bytes // PROGRESS_BYTES > self.num_mib:
            self.num_mib = num_bytes // PROGRESS_BYTES
            self.storage.num_moves += 1
        return self.num_mib

    def said(self) -> str:
        return f"{self.num_mib} MiB were moved before."

    def result(self, deadline_s: float) -> T:
        """What the call returns, or TimeoutError; one that hangs stays in its thread, which ends
        with this process.

        Args:
            deadline_s: longest time without progress.
        """
        patience = Patience(deadline_s, self)
        while self.thread.is_alive() and (left_s := patience.left_s()) > 0:
            self.thread.join(min(left_s, LOOK_S))
        if self.errors:
            raise self.errors[0]
        if not self.results:
            raise TimeoutError(f"no progress for {deadline_s:g} s; {self.said()}")
        return self.results[0]


def described(doing: str, url: str, error: Exception, attempts: int) -> str:
    """The error message, with advice."""
    reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    tries = f" after {attempts} tries" if attempts > 1 else ""
    if isinstance(error, PermissionError):
        advice = "Check the credentials in this machine's environment, and their permissions."
    elif isinstance(error, FileNotFoundError):
        advice = "Check the address; a bucket must be there before the run."
    elif isinstance(error, TimeoutError):
        advice = "If it is slow, raise output.storage.deadline_s."
    else:
        advice = "Check the address, the network and the credentials."
    return f"Cannot {doing} {url}{tries}: {type(error).__name__}: {reason}. {advice}"


def missing_package(url: str) -> str:
    """The package to install for a scheme."""
    scheme = scheme_of(url)
    extra = PACKAGES.get(scheme)
    needed = (
        f"`make extras`, or `pip install 'mgrpo[{extra}]'`"
        if extra
        else known_implementations.get(scheme, {}).get("err", "see fsspec's documentation")
    )
    return f"{url} needs a package that is not installed here: {needed}."


def local_folder_of(url: str) -> str:
    """A URL as a folder's name: s3://bucket/team/runs becomes s3-bucket-team-runs."""
    kept = (letter if letter.isalnum() or letter in "._" else "-" for letter in url)
    return "-".join(part for part in "".join(kept).split("-") if part)
