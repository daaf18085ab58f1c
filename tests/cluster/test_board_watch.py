"""When a rank hangs, worked by hand: a clock of our own, and boards that we write."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import progress_board, remote
from cluster.board_watch import BoardWatch
from cluster.progress_board import Patience, Progress
from mgrpo.errors import DeadlineError, LearnerLostError


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Look:
    def __init__(self, answer: Progress | None) -> None:
        self.answer = answer

    def is_done(self) -> bool:
        return self.answer is not None

    def outcome(self, doing: str) -> Progress:
        assert self.answer is not None
        return self.answer


class Rank:
    """Answers each look with its board, or not at all."""

    def __init__(self, name: str) -> None:
        self.name, self.num_done, self.answers = name, 0, True
        self.num_looks = 0

    def look(self, method: Any) -> Look:
        self.num_looks += 1
        board = Progress(self.num_done, "a backward pass", 0)
        return Look(board if self.answers else None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_board, "time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture
def ranks() -> list[Any]:
    return [Rank("learner-rank-0"), Rank("learner-rank-1")]


def seconds(clock: Clock, watch: BoardWatch, number: int) -> int:
    for _ in range(number):
        clock.now += 1
        watch.count()
    return watch.count()


def test_progress_of_one_rank_is_progress_of_all(clock: Clock, ranks: list[Any]) -> None:
    watch = BoardWatch(ranks, silent_s=60, clock=clock)
    patience = Patience(10, watch)
    for _ in range(5):
        ranks[1].num_done += 1
        seconds(clock, watch, 3)
        assert patience.left_s() >= 7
    seconds(clock, watch, 12)
    assert patience.left_s() <= 0
    assert "learner-rank-1: a backward pass" in patience.detail


def test_a_rank_that_answers_and_does_nothing_is_not_silent(clock: Clock, ranks: list[Any]) -> None:
    watch = BoardWatch(ranks, silent_s=5, clock=clock)
    assert seconds(clock, watch, 100) == 2  # the first answer of each


def test_a_rank_that_was_stopped_is_lost(clock: Clock, ranks: list[Any]) -> None:
    watch = BoardWatch(ranks, silent_s=60, clock=clock)
    seconds(clock, watch, 3)
    ranks[1].answers = False
    seconds(clock, watch, 60)  # the look before it was stopped is answered
    with pytest.raises(LearnerLostError, match=r"learner-rank-1 has not answered for 61 s .*60"):
        seconds(clock, watch, 2)


def test_a_rank_that_still_starts_may_be_silent(clock: Clock, ranks: list[Any]) -> None:
    ranks[0].answers = ranks[1].answers = False
    watch = BoardWatch(ranks, silent_s=5, clock=clock)
    assert seconds(clock, watch, 500) == 0


def test_a_driver_that_was_itself_stopped_has_not_waited(clock: Clock, ranks: list[Any]) -> None:
    watch = BoardWatch(ranks, silent_s=60, clock=clock)
    seconds(clock, watch, 3)
    ranks[0].answers = False
    seconds(clock, watch, 3)
    clock.now += 3600
    watch.count()  # raises nothing


def test_looks_are_a_second_apart(clock: Clock, ranks: list[Any]) -> None:
    watch = BoardWatch(ranks, silent_s=60, clock=clock)
    for _ in range(1000):
        clock.now += 0.01
        watch.count()
    assert ranks[0].num_looks <= 11


def test_ranks_in_the_places_of_others_begin_anew(clock: Clock, ranks: list[Any]) -> None:
    watch = BoardWatch(ranks, silent_s=5, clock=clock)
    before = seconds(clock, watch, 3)
    ranks[0].answers = False
    seconds(clock, watch, 4)
    ranks[:] = [Rank("learner-rank-0"), Rank("learner-rank-1")]
    assert seconds(clock, watch, 100) == before + 2  # progress counts on


class Counts:
    """Progress at some of the looks at it."""

    def __init__(self, *counts: int) -> None:
        self.counts = list(counts)

    def count(self) -> int:
        return self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]

    def said(self) -> str:
        return "Nothing moved."


def test_a_deadline_for_the_whole_is_not_renewed(clock: Clock) -> None:
    patience = Patience(10, None)
    clock.now += 4
    assert patience.left_s() == 6


def test_a_call_beside_others_waits_for_as_long_as_there_is_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "LOOK_S", 0.01)
    actor = SimpleNamespace(name="learner-rank-0")
    reference = SimpleNamespace(future=Future)
    monkeypatch.setattr(remote.ray, "cancel", lambda one: None)
    call: Any = remote.Call(actor, "add_trees", reference)
    progress = Counts(*range(20), 20)

    async def wait() -> None:
        await call.answer(deadline_s=0.03, setting="cluster.deadlines.update_s", progress=progress)

    with pytest.raises(DeadlineError, match=r"learner-rank-0 \(add_trees\).*Nothing moved"):
        asyncio.run(wait())
    assert progress.counts == [20]
