"""Problems in a file instead of in memory, and several lists of them as one."""

from __future__ import annotations

import os
import pickle
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import IO, overload

from mgrpo.types import Problem

BUFFER_BYTES = 2**20


class Problems(Sequence[Problem]):
    """Base of sequences of problems that make each one when it is asked for."""

    def at(self, index: int) -> Problem:
        """The problem at a place from 0 on."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        places = range(len(self))[index]  # raises the IndexError that ends an iteration
        return self.at(places) if isinstance(places, int) else [self.at(one) for one in places]


class StoredProblems(Problems):
    """Problems in a file. Memory holds 12 bytes of each. Any number of threads may read.

    Args:
        file: an open one, with the problems that the other arguments describe; None: an empty
            temporary one, which the system deletes with the last of its readers.
        starts: of each problem in the file, in bytes.
        sizes: of each problem, in bytes.
        known_fingerprint: of these problems; "" if it is unknown.
    """

    def __init__(
        self,
        file: IO[bytes] | None = None,
        starts: Iterable[int] = (),
        sizes: Iterable[int] = (),
        known_fingerprint: str = "",
    ) -> None:
        self.file = file or tempfile.TemporaryFile(buffering=BUFFER_BYTES)  # noqa: SIM115
        self.starts, self.sizes = array("q", starts), array("i", sizes)
        self.known_fingerprint = known_fingerprint
        self.is_flushed = True

    def append(self, problem: Problem) -> None:
        data = pickle.dumps(problem, pickle.HIGHEST_PROTOCOL)
        self.starts.append(self.file.tell())
        self.sizes.append(len(data))
        self.file.write(data)
        self.is_flushed, self.known_fingerprint = False, ""

    def selected(self, places: Iterable[int]) -> StoredProblems:
        """Those at some places, in the same file."""
        self.flush()
        chosen = StoredProblems(self.file)
        for place in places:
            chosen.starts.append(self.starts[place])
            chosen.sizes.append(self.sizes[place])
        return chosen

    def flush(self) -> None:
        if not self.is_flushed:
            self.file.flush()
            self.is_flushed = True

    def __len__(self) -> int:
        return len(self.starts)

    def at(self, index: int) -> Problem:
        self.flush()
        data = os.pread(self.file.fileno(), self.sizes[index], self.starts[index])
        problem: Problem = pickle.loads(data)
        return problem


class JoinedProblems(Problems):
    """Several sequences of problems as one."""

    def __init__(self, *parts: Sequence[Problem]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Problem]:
        return chain.from_iterable(self.parts)

    def at(self, index: int) -> Problem:
        ends = accumulate(map(len, self.parts))
        part, end = next((p, end) for p, end in zip(self.parts, ends, strict=True) if index < end)
        return part[index - end]


def selected(
    problems: list[Problem] | StoredProblems, places: Iterable[int]
) -> list[Problem] | StoredProblems:
    """The problems at some places, in memory or not as they are."""
    if isinstance(problems, StoredProblems):
        return problems.selected(places)
    return [problems[place] for place in places]
