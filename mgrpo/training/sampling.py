"""Samples a step's problems while other steps train."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from actors.rollout import Rollout
from mgrpo.types import Completion, CompletionId


class DoneTrees:
    """The problems of a step that are sampled so far.

    Args:
        num_problems: that are sampled.
        min_done_fraction: of them that is enough for the step to train.
    """

    def __init__(self, num_problems: int, min_done_fraction: float) -> None:
        self.num_problems = num_problems
        self.num_needed = math.ceil(min_done_fraction * num_problems)
        self.completions: dict[CompletionId, list[Completion]] = {}
        self.enough = asyncio.Event()

    def put(self, tree: CompletionId, completions: list[Completion]) -> None:
        self.completions[tree] = completions
        if len(self.completions) >= self.num_needed:
            self.enough.set()

    @property
    def num_missing(self) -> int:
        return self.num_problems - len(self.completions)


@dataclass(frozen=True, slots=True)
class Sampling:
    """A step's completions that are being sampled."""

    rollout: Rollout
    task: asyncio.Task[list[Completion]]
    trees: DoneTrees

    @property
    def is_done(self) -> bool:
        """Whether there are `completions` that a step can train on."""
        return self.task.done() and (self.trees.enough.is_set() or not self.task.cancelled())

    def check(self) -> None:
        """
        Raises:
            The error that ended the sampling.
        """
        if self.task.done() and not self.task.cancelled():
            error = self.task.exception()
            if error is not None:
                raise error

    async def settled(self) -> None:
        """Wait until enough problems are done, and end the others."""
        enough = asyncio.create_task(self.trees.enough.wait())
        await asyncio.wait({self.task, enough}, return_when=asyncio.FIRST_COMPLETED)
        enough.cancel()
        if self.trees.num_missing:
            self.task.cancel()
        await asyncio.wait({self.task})

    def completions(self) -> list[Completion]:
        """Of the problems that are done, in the step's order.

        Raises:
            The error that ended the sampling.
        """
        self.check()
        found = self.trees.completions
        return [one for tree in sorted(found) for one in found[tree]]
