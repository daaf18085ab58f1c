"""Gives the learner the trees of a step as they are complete, while others are still sampled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable

from mgrpo.errors import task_group
from mgrpo.training.learner_ranks import Learner
from mgrpo.training.sources.source import Work
from mgrpo.types import Completion, CompletionId, Selection


class TreeFeed:
    """Each time that the learner is ready, it gets the trees that wait; at the end all of them.

    Args:
        learner: has begun an update.
        least_tokens: trees wait until they have as many, or until no more come.
    """

    def __init__(self, learner: Learner, step: int, work: Work, *, least_tokens: int) -> None:
        self.learner, self.step, self.least_tokens = learner, step, least_tokens
        self.ready, self.parents = by_tree(work.ready), by_tree(work.parents)
        self.waiting: list[tuple[CompletionId, list[Completion]]] = []
        self.changed = asyncio.Event()
        self.is_closed = False
        self.closed_at = 0.0  # time.monotonic(): the last tree was complete
        self.busy_before_close_s = 0.0
        self.selections: list[Selection] = []

    def put(self, tree: CompletionId, completions: list[Completion]) -> None:
        """One tree, complete but for the completions that the work gave."""
        self.waiting.append((tree, completions))
        self.changed.set()

    async def beside(self, sampling: Coroutine[object, None, list[Completion]]) -> list[Completion]:
        """Sample, and feed the learner with what `put` is given meanwhile.

        The first failure ends both, and is raised as it is.
        """
        async with task_group() as group:
            feeding = group.create_task(self.feed())
            done = await group.create_task(sampling)
            self.is_closed, self.closed_at = True, time.monotonic()
            self.changed.set()
            await feeding
        return done

    async def feed(self) -> None:
        while not self.is_closed or self.waiting:
            if not self.is_worth_it():
                self.changed.clear()
                await self.changed.wait()
                continue
            trees, self.waiting = self.waiting, []
            began = time.monotonic()
            self.selections += await self.learner.add_trees(
                self.step,
                [one for tree, sampled in trees for one in [*self.ready.get(tree, ()), *sampled]],
                [one for tree, _ in trees for one in self.parents.get(tree, ())],
            )
            ended = min(time.monotonic(), self.closed_at or float("inf"))
            self.busy_before_close_s += max(0.0, ended - began)

    def is_worth_it(self) -> bool:
        if self.is_closed:
            return bool(self.waiting)
        num_tokens = sum(len(one.token_ids) for _, sampled in self.waiting for one in sampled)
        return num_tokens >= self.least_tokens


def by_tree(completions: Iterable[Completion]) -> dict[CompletionId, list[Completion]]:
    """Completions of a step by their problem."""
    found: dict[CompletionId, list[Completion]] = {}
    for one in completions:
        found.setdefault(one.id.tree, []).append(one)
    return found
