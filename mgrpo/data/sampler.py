"""The order of problems: reshuffled each epoch, and resumed exactly."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from pydantic import BaseModel, NonNegativeInt

from mgrpo.errors import DataError
from mgrpo.records.json_object import JsonObject
from mgrpo.types import Completion


class Sampler(Protocol):
    """Endless indices into the problems."""

    def take(self, n: int) -> list[int]:
        """The next `n` indices."""
        ...

    def observe(self, completions: Sequence[Completion]) -> dict[str, float]:
        """Take in how a step's problems went; returns metrics of the next draw."""
        ...

    def state_dict(self) -> JsonObject: ...

    def load_state_dict(self, state: JsonObject) -> None: ...


class ShufflingState(BaseModel, strict=True):
    """The numbers in a `ShufflingSampler`'s state that differ from draw to draw."""

    epoch: NonNegativeInt
    position: NonNegativeInt
    deferred: list[int]


class ShufflingSampler:
    """Endless indices into `num_problems` problems, reshuffled each epoch.

    An epoch's order depends only on (seed, epoch), so the state is a few numbers. One call of
    `take` never returns an index twice unless `n` exceeds the number of problems: if it crosses
    into a new epoch, the indices already taken come last in that epoch.
    """

    def __init__(self, num_problems: int, seed: int) -> None:
        if num_problems < 1:
            raise DataError("There are no problems to sample from.")
        self.num_problems = num_problems
        self.seed = seed
        self.begin_epoch(0, deferred=[])

    def begin_epoch(self, epoch: int, deferred: list[int]) -> None:
        order = list(range(self.num_problems))
        random.Random(f"{self.seed}/{epoch}").shuffle(order)
        late = set(deferred)
        self.order = [i for i in order if i not in late] + [i for i in order if i in late]
        self.epoch, self.deferred, self.position = epoch, deferred, 0

    def take(self, n: int) -> list[int]:
        """The next `n` indices; `n` may be more than the epoch's rest."""
        taken: list[int] = []
        while len(taken) < n:
            if self.position == self.num_problems:
                self.begin_epoch(self.epoch + 1, deferred=sorted(set(taken)))
            some = self.order[self.position : self.position + n - len(taken)]
            self.position += len(some)
            taken += some
        return taken

    def observe(self, completions: Sequence[Completion]) -> dict[str, float]:
        """Results do not change this order."""
        return {}

    def state_dict(self) -> JsonObject:
        """Plain values for JSON."""
        return {
            "num_problems": self.num_problems,
            "seed": self.seed,
            "epoch": self.epoch,
            "position": self.position,
            "deferred": list(self.deferred),
        }

    def load_state_dict(self, state: JsonObject) -> None:
        """Continue from a `state_dict`.

        Raises:
            DataError: the state is of other data or another seed.
        """
        refuse_other_order(state, num_problems=self.num_problems, seed=self.seed)
        kept = ShufflingState.model_validate(state)
        if kept.position > self.num_problems:
            raise DataError(
                f"The checkpoint's sampler is at {kept.position} of {self.num_problems} problems: "
                "somebody has changed it. Resume from the checkpoint before."
            )
        self.begin_epoch(kept.epoch, deferred=kept.deferred)
        self.position = kept.position


def refuse_other_order(state: JsonObject, **present: int) -> None:
    """Raise DataError if a sampler's state is not of this run's order of problems."""
    for key, now in present.items():
        if state[key] != now:
            raise DataError(
                f"The checkpoint's sampler has {key} {state[key]}, this run {now}: the order "
                "of problems cannot be continued. Resume with the data and seed of the "
                "checkpoint, or start a new run."
            )
