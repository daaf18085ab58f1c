"""The study's results: one row a trial, in a file that is written after each."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.second_look.design import Trial
from benchmarks.second_look.scales import SMALL, Phase, Scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a trial came to. Accuracies are shares of 1, over 8 samples of each held-out problem."""

    phase: Phase
    family: str
    arm: str
    seed: int
    learning_rate: float
    t1: float  # first attempts
    t2: float  # after the second turn
    t2_independent: float  # the second of two independent attempts
    wrong_to_right: float
    right_to_wrong: float
    area: float  # mean accuracy of sampled first attempts over the training's steps
    completions: float  # that training sampled
    generated_tokens: float
    prompt_tokens: float  # each completion's whole prompt, though engine and learner share them
    training_s: float
    digest: str  # of the trial's recipes and the start policy
    revision: str

    @property
    def trial(self) -> Trial:
        return Trial(
            phase=self.phase,
            family=self.family,
            arm=self.arm,
            seed=self.seed,
            learning_rate=self.learning_rate,
        )


class Results:
    """The rows of a file; those of recipes or a policy that have changed since do not count.
    Several commands may add to one file."""

    def __init__(self, path: Path, scale: Scale = SMALL) -> None:
        self.path, self.scale = path, scale
        self.rows = self.kept()

    def of(self, trials: Iterable[Trial]) -> list[Row]:
        """Those that there are, in the order of the trials."""
        known = {row.trial: row for row in self.rows}
        return [known[trial] for trial in trials if trial in known]

    def kept(self) -> list[Row]:
        """Those of the file that count."""
        kept = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else []
        return [row for row in (Row(**one) for one in kept) if row.digest == row.trial.digest]

    def add(self, row: Row) -> None:
        with locked(self.path.parent):
            self.rows = [one for one in self.kept() if one.trial != row.trial] + [row]
            unfinished = self.path.with_suffix(".unfinished")
            unfinished.write_text(lines_of(self.rows), encoding="utf-8")
            unfinished.replace(self.path)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds back whoever else adds to a file of this folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def lines_of(rows: Sequence[Row]) -> str:
    """A JSON list with a line per row."""
    ordered = sorted(rows, key=lambda row: row.trial.name)
    return "[\n" + ",\n".join(json.dumps(asdict(row)) for row in ordered) + "\n]\n"
