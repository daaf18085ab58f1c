"""Progress of actors that work, as their boards show it while their one thread computes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from cluster.progress_board import LOOK_S, Progress, ProgressBoard
from cluster.remote import Call, RemoteActor
from mgrpo.errors import LearnerLostError

SILENT_SETTING = "cluster.health.dead_after_s"


class HasBoard(Protocol):
    """An actor of `Placement.start(..., answers_looks=True)`."""

    def progress(self) -> Progress: ...


class Pulse:
    """What was heard of one process.

    Example: answers at 0 s and 5 s with the same board: still for 5 s, silent for 0 s. None at
    10 s: silent for 5 s.
    """

    def __init__(self) -> None:
        self.last: Progress | None = None
        self.num_moves = 0
        self.silent_s = 0.0

    def passed(self, seconds: float) -> None:
        """Time without an answer. Not counted before the first one: the process still starts."""
        if self.last is not None:
            self.silent_s += seconds

    def answered(self, progress: Progress) -> bool:
        """Whether there was progress since the last answer in which there was any."""
        self.silent_s = 0.0
        if self.last is not None and not progress.is_after(self.last):
            return False
        self.last = progress
        self.num_moves += 1
        return True


class BoardWatch:
    """Looks at the boards of actors, about once a second while somebody waits for them.

    What one of them does is progress of all: ranks wait for each other.

    Args:
        actors: others may take their places in the list.
        silent_s: longest time without an answer; a process that was stopped gives none.
        board: the run's, which is told of their progress.
    """

    def __init__(
        self,
        actors: Sequence[RemoteActor[HasBoard]],
        *,
        silent_s: float,
        board: ProgressBoard | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.actors, self.silent_s, self.clock = actors, silent_s, clock
        self.board = board or ProgressBoard()
        self.pulses: dict[RemoteActor[HasBoard], Pulse] = {}
        self.looks: dict[RemoteActor[HasBoard], Call[Progress]] = {}
        self.looked_at = -float("inf")
        self.num_before = 0  # moves of actors that were replaced

    def count(self) -> int:
        """How often there was progress so far. Does not wait.

        Raises:
            LearnerLostError: one does not answer, or is gone.
        """
        now = self.clock()
        passed_s = now - self.looked_at
        if passed_s >= LOOK_S:
            self.looked_at = now
            self.forget_replaced()
            for actor in self.actors:
                # A driver that was itself stopped for long has waited no longer than it looked.
                self.look(actor, min(passed_s, 2 * LOOK_S))
        return self.num_before + sum(pulse.num_moves for pulse in self.pulses.values())

    def look(self, actor: RemoteActor[HasBoard], passed_s: float) -> None:
        pulse, look = self.pulses.setdefault(actor, Pulse()), self.looks.get(actor)
        if look is not None and look.is_done():
            if pulse.answered(look.outcome("say how far it is")):
                self.board.did(f"{actor.name}: {said(pulse)}")
            look = None
        elif look is not None:
            pulse.passed(passed_s)
        if pulse.silent_s > self.silent_s:
            raise LearnerLostError(
                f"{actor.name} has not answered for {pulse.silent_s:.0f} s ({SILENT_SETTING} is "
                f"{self.silent_s:g}); its process stands still. It was last at: {said(pulse)}."
            )
        self.looks[actor] = look or actor.look(HasBoard.progress)

    def forget_replaced(self) -> None:
        for actor in [one for one in self.pulses if one not in self.actors]:
            self.num_before += self.pulses.pop(actor).num_moves
            self.looks.pop(actor, None)

    def said(self) -> str:
        """For people: what each of them was last doing."""
        names = [f"{actor.name}: {said(pulse)}" for actor, pulse in self.pulses.items()]
        return f"Nothing moved in that time ({'; '.join(names) or 'no answer yet'})."


def said(pulse: Pulse) -> str:
    return "its start" if pulse.last is None else pulse.last.doing
