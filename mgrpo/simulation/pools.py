"""Engines that share requests: the least busy gets the next group, as in `cluster.fleet.leases`."""

from __future__ import annotations

import heapq
from collections import deque

from mgrpo.simulation.engine import Engine, Group
from mgrpo.simulation.outcome import Course
from mgrpo.simulation.rates import EngineRates


class EnginePool:
    """
    Args:
        name: "layer1", "shared", ...
        gpus_per_engine: for shares of GPUs.
        quantum: see `Engine`.
    """

    def __init__(
        self, name: str, rates: EngineRates, *, num_engines: int, gpus_per_engine: int, quantum: int
    ) -> None:
        self.name, self.gpus_per_engine = name, gpus_per_engine
        self.engines = [Engine(rates, quantum=quantum) for _ in range(num_engines)]
        self.loads = [(0, index) for index in range(num_engines)]  # a heap, with entries of before
        self.homeless: deque[Group] = deque()  # while no engine is up, or the pool is closed
        self.is_closed = self.is_paused = False
        self.changed: set[int] = set()  # engines whose next event has moved
        self.course = Course()
        self.was: dict[int, tuple[bool, int]] = {}
        self.num_busy = self.num_running = 0

    def submit(self, group: Group, now: float) -> None:
        """To the least busy engine."""
        index = None if self.is_closed else self.least_busy()
        if index is None:
            self.homeless.append(group)
            return
        engine = self.engines[index]
        engine.advance(now)
        engine.submit(group)
        self.note(index)

    def least_busy(self) -> int | None:
        while self.loads:
            load, index = self.loads[0]
            engine = self.engines[index]
            if engine.is_up and engine.num_requested == load:
                return index
            heapq.heappop(self.loads)
        return None

    def note(self, index: int) -> None:
        """An engine's requests have changed."""
        self.changed.add(index)
        heapq.heappush(self.loads, (self.engines[index].num_requested, index))

    def settle(self, wall: float) -> list[tuple[float, int]]:
        """After all changes of a moment: fill batches; the next event of each changed engine."""
        events = []
        for index in sorted(self.changed):
            engine = self.engines[index]
            engine.admit()
            events.append((engine.next_end(), index))
            busy, running = self.was.get(index, (False, 0))
            self.num_busy += engine.is_busy - busy
            self.num_running += engine.num_running - running
            self.was[index] = (engine.is_busy, engine.num_running)
        if self.changed:
            self.note_course(wall)
        self.changed.clear()
        return events

    def note_course(self, wall: float) -> None:
        busy = 0 if self.is_paused else self.num_busy
        self.course.add(wall, busy, self.num_running if busy else 0)

    @property
    def is_drained(self) -> bool:
        """No engine has a request."""
        return not any(engine.num_requested for engine in self.engines)

    def pause(self, now: float, wall: float, seconds: float) -> None:
        """Running requests stand still, and go on in as many seconds."""
        for index, engine in enumerate(self.engines):
            if engine.is_up and engine.num_requested:
                engine.advance(now)
                engine.prefill_s += seconds
                self.note(index)
        self.is_paused = True

    def resume(self, now: float, wall: float) -> None:
        """Requests that came while the pool was closed go to its engines."""
        self.is_closed = self.is_paused = False
        self.note_course(wall)
        self.submit_homeless(now)

    def submit_homeless(self, now: float) -> None:
        waiting, self.homeless = self.homeless, deque()
        for group in waiting:
            self.submit(group, now)

    def finish(self, index: int, now: float) -> list[Group]:
        """The next sequences of an engine end; the groups that are done."""
        done = self.engines[index].finish(now)
        self.note(index)
        return done

    def lose(self, index: int, now: float) -> None:
        """An engine fails; others start its requests again."""
        engine = self.engines[index]
        engine.advance(now)
        lost = engine.fail()
        self.note(index)
        for group in lost:
            self.submit(group, now)

    def restore(self, index: int, now: float) -> None:
        """A lost engine is there again."""
        engine = self.engines[index]
        engine.is_up, engine.now = True, now
        self.note(index)
        self.submit_homeless(now)
