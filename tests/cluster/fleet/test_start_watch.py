"""An engine may load for as long as its processes read."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.fleet.start_watch import StartWatch
from cluster.progress_board import LOOK_S, PROGRESS_BYTES, Patience, Progress, ProgressBoard
from mgrpo.errors import ActorDiedError


class Look:
    def __init__(self, answer: int | Exception) -> None:
        self.answer = answer

    def is_done(self) -> bool:
        return True

    def outcome(self, doing: str) -> Progress:
        if isinstance(self.answer, Exception):
            raise self.answer
        return Progress(0, "its start", self.answer)


class Loader:
    """Answers each look with the next of these numbers of bytes, and then with the last one."""

    name = "engine-0"

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)

    def look(self, method: object) -> Look:
        return Look(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])


def watched(actor: Any) -> tuple[StartWatch, list[float]]:
    watch, now = StartWatch([actor], ProgressBoard()), [0.0]
    watch.watch.clock = lambda: now[0]
    return watch, now


def test_what_is_read_renews_the_deadline_and_a_log_line_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch, now = watched(Loader(0, PROGRESS_BYTES, PROGRESS_BYTES + 100))
    monkeypatch.setattr("cluster.progress_board.time.monotonic", lambda: now[0])
    patience, left = Patience(10.0, watch), []
    for _ in range(6):
        left.append(patience.left_s())
        now[0] += LOOK_S
    assert left == [10.0, 10.0, 10.0, 9.0, 8.0, 7.0]


def test_one_that_is_gone_is_told_by_its_call_and_not_here() -> None:
    watch, now = watched(Loader(0, ActorDiedError("gone")))
    counts = []
    for _ in range(4):
        counts.append(watch.count())
        now[0] += LOOK_S
    assert counts == [0, 1, 1, 1]
