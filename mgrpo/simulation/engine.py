"""One engine: continuous batching, in which every running sequence gets a token per decode step.

Time between two changes of the batch is exact: if the next decode step takes s seconds with n
sequences, k of them take k * s + context_s * n * k**2 / 2, because contexts grow by n tokens each.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field

from mgrpo.simulation.rates import EngineRates
from mgrpo.simulation.workload import Tree


@dataclass(slots=True, eq=False)
class Group:
    """Completions of one prompt, which one engine samples."""

    tree: Tree
    prompt_tokens: int
    lengths: list[int]
    num_open: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_open = len(self.lengths)


class Engine:
    """
    Args:
        rates: its speed.
        quantum: decode steps; sequences end at multiples of it, so that fewer events are needed.
            1 is exact.
    """

    def __init__(self, rates: EngineRates, *, quantum: int) -> None:
        self.rates, self.quantum = rates, quantum
        self.is_up = True
        self.now = 0.0
        self.steps = 0.0  # decode steps done
        self.prefill_s = 0.0  # still to be done before the next decode step
        self.num_running = 0
        self.context = 0.0  # tokens of all running sequences
        self.num_requested = 0  # completions of groups that are not done
        self.groups: dict[Group, None] = {}  # in the order of their requests
        self.waiting: deque[tuple[Group, int]] = deque()
        self.ends: list[float] = []  # a heap of decode steps at which sequences end
        self.ending: dict[float, list[tuple[Group, float]]] = {}  # and which; see `admit`

    @property
    def is_busy(self) -> bool:
        return self.num_running > 0

    def submit(self, group: Group) -> None:
        """A request; `admit` takes its sequences into the batch."""
        self.groups[group] = None
        self.num_requested += len(group.lengths)
        self.waiting.extend((group, number) for number in range(len(group.lengths)))

    def admit(self) -> None:
        """Fill the batch from the queue, in order."""
        rates = self.rates
        while self.waiting and self.num_running < rates.max_running:
            group, number = self.waiting.popleft()
            if number == 0:  # the others of the group find the prompt in the cache
                uncached = group.prompt_tokens * (1 - rates.cached_share)
                self.prefill_s += uncached * rates.prefill_s
            self.num_running += 1
            self.context += group.prompt_tokens
            end = self.steps + group.lengths[number]
            if self.quantum > 1:
                end = max(round(end / self.quantum), math.floor(self.steps / self.quantum) + 1)
                end *= self.quantum
            if end not in self.ending:
                heapq.heappush(self.ends, end)
                self.ending[end] = []
            # Its context at decode step x is x plus this number.
            self.ending[end].append((group, group.prompt_tokens - self.steps))

    def next_end(self) -> float:
        """When the next sequence ends, if nothing is admitted before; infinity without one."""
        if not self.ends:
            return math.inf
        return self.now + self.prefill_s + self.seconds(self.ends[0] - self.steps)

    def seconds(self, num_steps: float) -> float:
        """Of as many decode steps of the present batch."""
        return num_steps * self.step_s() + self.growth_s() * num_steps**2 / 2

    def step_s(self) -> float:
        rates = self.rates
        batch_s = self.num_running * rates.sequence_s + self.context * rates.context_s
        return max(rates.step_s, self.num_running * rates.arithmetic_s) + batch_s

    def growth_s(self) -> float:
        """By how much longer each decode step is than the one before."""
        return self.num_running * self.rates.context_s

    def advance(self, now: float) -> None:
        """Let time pass, in which no sequence ends."""
        seconds = now - self.now
        self.now = now
        prefill = min(seconds, self.prefill_s)
        self.prefill_s -= prefill
        seconds -= prefill
        if self.num_running == 0 or seconds <= 0:
            return
        first, growth = self.step_s(), self.growth_s()
        if growth * seconds < 1e-9 * first**2:
            steps = seconds / first
        else:
            steps = (math.sqrt(first**2 + 2 * growth * seconds) - first) / growth
        self.move(steps)

    def move(self, num_steps: float) -> None:
        self.steps += num_steps
        self.context += num_steps * self.num_running

    def finish(self, now: float) -> list[Group]:
        """Sequences that end now leave the batch; the groups that are done with them."""
        self.now, self.prefill_s = now, 0.0
        end = heapq.heappop(self.ends)
        self.move(end - self.steps)
        done = []
        for group, before in self.ending.pop(end):
            self.num_running -= 1
            self.context -= end + before
            group.num_open -= 1
            if group.num_open == 0:
                done.append(group)
                del self.groups[group]
                self.num_requested -= len(group.lengths)
        if self.num_running == 0:
            self.context = 0.0  # without what rounding left
        return done

    def fail(self) -> list[Group]:
        """Everything in it is lost; the groups that must start again elsewhere."""
        lost = list(self.groups)
        for group in lost:
            group.num_open = len(group.lengths)
        self.is_up = False
        self.groups, self.waiting, self.ends, self.ending = {}, deque(), [], {}
        self.num_running = self.num_requested = 0
        self.context = self.prefill_s = 0.0
        return lost
