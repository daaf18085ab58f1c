"""What a simulation recorded, and what follows from it: shares, seconds, tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SpanKind = Literal["update", "weights", "switch", "checkpoint", "evaluation", "lost"]
TAIL_BELOW = 0.5
"""Few engines sample where it is less than this share of them."""


@dataclass(frozen=True, slots=True)
class Span:
    """Something with a beginning and an end, beside the engines."""

    kind: SpanKind
    start_s: float
    end_s: float
    step: int


@dataclass(slots=True)
class Course:
    """How many engines of a pool are busy, and the sequences that they run, over time."""

    times: list[float] = field(default_factory=lambda: [0.0])  # rising
    busy: list[int] = field(default_factory=lambda: [0])  # from each time to the next
    running: list[int] = field(default_factory=lambda: [0])

    def add(self, time: float, busy: int, running: int) -> None:
        self.times.append(time)
        self.busy.append(busy)
        self.running.append(running)

    def means(
        self, edges: Sequence[float] | NDArray[np.float64], values: list[int]
    ) -> NDArray[np.float64]:
        """[edges - 1] time means of `busy` or `running` between neighbouring edges."""
        times, values_T = np.asarray(self.times), np.asarray(values, dtype=float)
        sums = np.concatenate([[0.0], np.cumsum(values_T[:-1] * np.diff(times))])
        edges = np.asarray(edges, dtype=float)
        at = np.searchsorted(times, edges, side="right") - 1
        integral = sums[at] + values_T[at] * (edges - times[at])
        widths = np.diff(edges)
        return np.diff(integral) / np.where(widths > 0, widths, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOutcome:
    """One pool of engines."""

    name: str
    num_engines: int
    num_gpus: int
    max_running: int  # sequences at a time in one engine
    course: Course


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Parts of a steady step's time; they add up to 1."""

    both: float  # engines sample and the learner updates
    sampling: float  # engines sample alone, most of them
    tail: float  # few engines sample, all else waits: a step's last completions
    learner: float  # the learner updates alone
    waiting: float  # neither: weights, switching, checkpoints, recovery

    @property
    def named(self) -> dict[str, float]:
        return {
            "sampling beside an update": self.both,
            "sampling alone": self.sampling,
            "few engines sampling alone": self.tail,
            "the update alone": self.learner,
            "weights and other waits": self.waiting,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A simulated run."""

    pools: Sequence[PoolOutcome]
    num_ranks: int
    is_colocated: bool
    staleness_steps: int
    spans: Sequence[Span]
    ends_s: Sequence[float]  # [steps] the step's weights are delivered, and what follows is over
    sampled_tokens: Sequence[int]  # [steps] completion tokens
    learner_tokens: Sequence[float]  # [steps] tokens that the learner computes
    trained_trees: Sequence[int]  # [steps] problems
    num_engine_losses: int
    num_learner_losses: int

    @property
    def steady(self) -> range:
        """Steps without the first, and without the last ones, beside which nothing is sampled."""
        last = len(self.ends_s) - self.staleness_steps
        return range(1, last) if last > 1 else range(len(self.ends_s))

    @property
    def window(self) -> tuple[float, float]:
        """Beginning and end of the steady steps, in seconds."""
        steps = self.steady
        start = self.ends_s[steps[0] - 1] if steps[0] > 0 else 0.0
        return start, self.ends_s[steps[-1]]

    @property
    def step_seconds(self) -> list[float]:
        """Of each steady step."""
        return [self.ends_s[n] - (self.ends_s[n - 1] if n else 0.0) for n in self.steady]

    @property
    def seconds_per_step(self) -> float:
        start, end = self.window
        return (end - start) / len(self.steady)

    @property
    def tokens_per_s(self) -> float:
        """Completion tokens that are sampled and trained on."""
        start, end = self.window
        return sum(self.sampled_tokens[n] for n in self.steady) / (end - start)

    @property
    def learner_busy(self) -> float:
        return self.span_share(["update"])

    def span_share(self, kinds: Sequence[SpanKind]) -> float:
        """Share of the steady time that spans of some kinds take."""
        start, end = self.window
        inside = (
            max(0.0, min(span.end_s, end) - max(span.start_s, start))
            for span in self.spans
            if span.kind in kinds
        )
        return sum(inside) / (end - start)

    def pool_busy(self, pool: PoolOutcome) -> float:
        """Share of the steady time in which one of the pool's engines samples, on average."""
        return float(pool.course.means(self.window, pool.course.busy)[0]) / pool.num_engines

    def pool_running(self, pool: PoolOutcome) -> float:
        """Mean sequences at a time in an engine, while it is busy."""
        busy = float(pool.course.means(self.window, pool.course.busy)[0])
        return float(pool.course.means(self.window, pool.course.running)[0]) / busy if busy else 0.0

    @property
    def busy_shares(self) -> dict[str, float]:
        """Of each pool of engines, and of the learner."""
        pools = {pool.name: self.pool_busy(pool) for pool in self.pools}
        return pools | {"learner": self.learner_busy}

    @property
    def num_gpus(self) -> int:
        engines = sum(pool.num_gpus for pool in self.pools)
        return engines if self.is_colocated else engines + self.num_ranks

    @property
    def gpus_busy(self) -> float:
        """Share of the GPUs' time in which they sample or update."""
        used = sum(pool.num_gpus * self.pool_busy(pool) for pool in self.pools)
        return (used + self.num_ranks * self.learner_busy) / self.num_gpus

    def shares(self) -> Shares:
        """Which parts work at the same time, over the steady steps."""
        start, end = self.window
        edges = sorted({start, end, *self.moments(start, end)})
        widths = np.diff(edges)
        engines = sum(pool.num_engines for pool in self.pools)
        busy = sum(pool.course.means(edges, pool.course.busy) for pool in self.pools) / engines
        updates = [span for span in self.spans if span.kind == "update"]
        middles = (np.asarray(edges[1:]) + np.asarray(edges[:-1])) / 2
        trains = covered(middles, updates)
        samples, whole = np.asarray(busy) > 0, end - start
        tail = samples & ~trains & (np.asarray(busy) < TAIL_BELOW)
        parts = [samples & trains, samples & ~trains & ~tail, tail, ~samples & trains]
        both, sampling, tails, learner = (float((widths * part).sum()) / whole for part in parts)
        rest = max(0.0, 1 - both - sampling - tails - learner)
        return Shares(both=both, sampling=sampling, tail=tails, learner=learner, waiting=rest)

    def moments(self, start: float, end: float) -> Iterator[float]:
        """When anything changes inside a window."""
        for pool in self.pools:
            yield from (time for time in pool.course.times if start < time < end)
        for span in self.spans:
            yield from (time for time in (span.start_s, span.end_s) if start < time < end)

    def bound(self) -> str:
        """What a step's time consists of, largest part first."""
        parts: Mapping[str, float] = self.shares().named
        shown = sorted(parts.items(), key=lambda part: -part[1])
        return ", ".join(f"{name} {100 * share:.0f} %" for name, share in shown if share >= 0.005)


def covered(times: NDArray[np.float64], spans: Sequence[Span]) -> NDArray[np.bool_]:
    """[times] whether each is inside one of the spans, which do not overlap."""
    if not spans:
        return np.zeros(len(times), dtype=bool)
    ordered = sorted(spans, key=lambda span: span.start_s)
    starts = np.array([span.start_s for span in ordered])
    ends = np.array([span.end_s for span in ordered])
    at = np.searchsorted(starts, times, side="right") - 1
    return (at >= 0) & (times < ends[np.maximum(at, 0)])
