"""Calls of all ranks beside sampling: the first failure is the one that is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mgrpo.errors import ActorDiedError, task_group
from mgrpo.training import learner_ranks
from mgrpo.training.learner_ranks import LearnerRanks
from tests.learner.builders import attempts

PROGRESS: Any = object()


class Answer:
    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    async def answer(self, *, deadline_s: float, setting: str, progress: Any) -> Any:
        assert (deadline_s, setting) == (60.0, "cluster.deadlines.update_s")
        assert progress is PROGRESS
        if isinstance(self.outcome, Exception):
            raise self.outcome
        await asyncio.sleep(self.outcome or 0)
        return self.outcome


class Rank:
    """Stands for a remote rank: what it was called with, and what it answers."""

    def __init__(self, outcome: Any) -> None:
        self.outcome, self.calls = outcome, []

    def submit(self, method: Any, given: Any) -> Answer:
        self.calls.append((method.__name__, given.step))
        return Answer(self.outcome)


def ranks_of(monkeypatch: pytest.MonkeyPatch, *outcomes: Any) -> LearnerRanks:
    monkeypatch.setattr(learner_ranks, "share", lambda value: value)
    ranks: Any = [Rank(outcome) for outcome in outcomes]
    return LearnerRanks(ranks, update_s=60.0, shared_folder=True, progress=PROGRESS)


def test_every_rank_gets_the_trees_and_rank_0_answers(monkeypatch):
    learner = ranks_of(monkeypatch, 0.01, 0.02)
    found: Any = asyncio.run(learner.add_trees(7, attempts(), ()))
    assert found == 0.01
    calls = [rank.calls for rank in learner.ranks]  # type: ignore[attr-defined]
    assert calls == [[("add_trees", 7)]] * 2


def test_a_rank_that_dies_ends_the_wait_for_the_others_with_its_own_error(monkeypatch):
    learner = ranks_of(monkeypatch, 50.0, ActorDiedError("learner-rank-1 died"))

    async def beside_sampling() -> None:
        async with task_group() as group:
            group.create_task(asyncio.sleep(50.0))
            await learner.add_trees(0, attempts(), ())

    with pytest.raises(ActorDiedError, match="learner-rank-1 died"):
        asyncio.run(beside_sampling())
