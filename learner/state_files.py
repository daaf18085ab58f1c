"""A learner's state in files that any number of ranks can read, at any ZeRO stage.

    weights-zero2-00001-of-00004.safetensors   rank 1's part of the float32 weights
    exp_avg-zero2-00001-of-00004.safetensors   of a state of the optimizer, by its name there
    ema/average-zero2-00001-of-00004.safetensors   of the policy's running average, if it has one

A file has one tensor of each weight: the numbers that the rank holds, in row-major order. Its
header says where in the weight they begin and how many there are in all. A reader looks up which
files have the numbers that it needs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mgrpo.errors import RunDirectoryError

PLACES, VALUES = "places", "values"  # keys of a file's header
SUFFIX = ".safetensors"
SHARD = re.compile(rf"-zero(?P<stage>\d)-\d+-of-(?P<num_ranks>\d+){re.escape(SUFFIX)}$")


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive numbers of a weight, in row-major order."""

    name: str
    start: int
    numel: int
    whole: int  # of the weight

    @property
    def stop(self) -> int:
        return self.start + self.numel


Values = Mapping[str, float]
"""A weight's numbers beside its tensors, such as Adam's number of steps."""
PLACES_TYPE = TypeAdapter(dict[str, tuple[int, int]])  # name -> start, numbers of the whole weight
VALUES_TYPE = TypeAdapter(dict[str, dict[str, float]])


def share(whole: int, rank: int, num_ranks: int) -> tuple[int, int]:
    """First and last + 1 of the numbers that one rank writes where each holds all of them."""
    return whole * rank // num_ranks, whole * (rank + 1) // num_ranks


def padded_piece(name: str, whole: int, part: int, rank: int) -> Piece:
    """What a rank holds of a weight that is cut into equal parts, the last ones padded; its numel
    is 0 where the part is padding alone.

    Args:
        part: numbers of each rank, padding included.
    """
    start = min(whole, rank * part)
    return Piece(name, start, min(part, whole - start), whole)


@dataclass(frozen=True)
class Shard:
    """How one rank's files are called."""

    zero_stage: int
    rank: int
    num_ranks: int

    @property
    def ending(self) -> str:
        return f"-zero{self.zero_stage}-{self.rank:05d}-of-{self.num_ranks:05d}{SUFFIX}"

    def reads(self, names: Sequence[str]) -> list[str]:
        """Those of a state's files that this rank goes on from. Of shards it needs its own alone
        if the same ranks saved them at the same stage, and all of them at stage 0, where each rank
        holds everything and writes a share.
        """
        shards = {name: found for name in names if (found := SHARD.search(name))}
        forms = {(int(one["stage"]), int(one["num_ranks"])) for one in shards.values()}
        if self.zero_stage == 0 or forms != {(self.zero_stage, self.num_ranks)}:
            return list(names)
        return [name for name in names if name not in shards or name.endswith(self.ending)]

    def write(
        self,
        directory: Path,
        kind: str,
        pieces: Iterable[tuple[Piece, Tensor]],
        values: Mapping[str, Values] | None = None,
    ) -> None:
        """Write one file.

        Args:
            kind: of the numbers: "weights", or a state's name.
            pieces: each with its numbers, [piece.numel]; a weight comes once.
            values: of weights by name.

        Raises:
            RunDirectoryError: it cannot be written, as where the disk is full.
        """
        file = directory / f"{kind}{self.ending}"
        found = [(piece, numbers) for piece, numbers in pieces if piece.numel]
        tensors = {piece.name: numbers.detach().cpu().contiguous() for piece, numbers in found}
        header = {
            PLACES: json.dumps({piece.name: (piece.start, piece.whole) for piece, _ in found}),
            VALUES: json.dumps(values or {}),
        }
        try:
            directory.mkdir(parents=True, exist_ok=True)
            save_file(tensors, file, metadata=header)
        except (OSError, SafetensorError) as error:
            raise RunDirectoryError(f"{file} cannot be written: {error}") from error


class StateReader:
    """The files of one kind in a folder. A context: they are open while it lasts."""

    def __init__(self, directory: Path, kind: str) -> None:
        """Nothing is opened yet."""
        self.directory, self.kind = directory, kind
        self.pieces: dict[str, list[tuple[Piece, Any]]] = {}
        self.values: dict[str, Values] = {}
        self._opened = ExitStack()

    def __enter__(self) -> StateReader:
        """
        Raises:
            RunDirectoryError: a file cannot be read.
        """
        try:
            for file in sorted(self.directory.glob(f"{self.kind}-zero*{SUFFIX}")):
                self._open(file)
        except BaseException:
            self._opened.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _open(self, file: Path) -> None:
        try:
            tensors = self._opened.enter_context(safe_open(file, "pt"))
            header = tensors.metadata() or {}
            places = PLACES_TYPE.validate_json(header.get(PLACES, ""))
            self.values.update(VALUES_TYPE.validate_json(header.get(VALUES, "")))
            for name, (start, whole) in places.items():
                numbers = tensors.get_slice(name)
                (numel,) = numbers.get_shape()
                self.pieces.setdefault(name, []).append((Piece(name, start, numel, whole), numbers))
        except (OSError, SafetensorError, ValidationError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise RunDirectoryError(
                f"{file} cannot be read: {reason}. It is damaged, or no file of a learner's state: "
                "resume from an earlier checkpoint."
            ) from error

    def refuse_other_weights(self, sizes: Mapping[str, int]) -> None:
        """Raise RunDirectoryError if the files are not of these weights. They need not be all of
        their files: a node may have its own ranks' alone, and `read` says what is missing.

        Args:
            sizes: numbers of each weight, by name.
        """
        saved = {name: found[0][0].whole for name, found in self.pieces.items()}
        differ = sorted(name for name, whole in saved.items() if whole != sizes.get(name))
        if not differ:
            return
        raise RunDirectoryError(
            f"The learner's state in {self.directory} is not of this policy: {len(differ)} of its "
            f"{self.kind} differ, such as {differ[0]}, which has {saved[differ[0]]} numbers "
            f"there and {sizes.get(differ[0], 0)} here. Resume with the recipe that saved it."
        )

    def read(self, piece: Piece, into: Tensor) -> None:
        """Fill a tensor of [piece.numel] with a piece's numbers.

        Raises:
            RunDirectoryError: files that have some of them are missing.
        """
        saved = self.pieces.get(piece.name, [])
        filled = piece.start
        for one, first, last in overlaps(piece, [found for found, _ in saved]):
            if first > filled:
                break
            numbers = saved[one][1][first - saved[one][0].start : last - saved[one][0].start]
            into[first - piece.start : last - piece.start].copy_(numbers)
            filled = last
        if filled < piece.stop:
            raise RunDirectoryError(
                f"The learner's state in {self.directory} is incomplete: no file has {self.kind} "
                f"of {piece.name} from number {filled} on. Files of some ranks are missing."
            )


def overlaps(wanted: Piece, saved: list[Piece]) -> Iterator[tuple[int, int, int]]:
    """Which saved pieces to read for a wanted one: (index, first, last + 1), in order, each number
    once. Where no piece has the next number, a later one comes next, and begins beyond it."""
    reached = wanted.start
    for place, one in sorted(enumerate(saved), key=lambda item: item[1].start):
        first, last = max(reached, one.start), min(wanted.stop, one.stop)
        if first < last:
            yield place, first, last
            reached = last
