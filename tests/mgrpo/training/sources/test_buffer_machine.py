"""The buffer of steps that are sampled ahead, under every order of steps, kills and losses.

1. Steps train in their order, each once in the policy's history.
2. Each step trains on the problems that were drawn for it, each once.
3. No more steps are drawn ahead than `num_ahead`, and none beyond the run's end.
4. No completion that trains is of a policy that is more than `num_ahead` updates older.
5. What is drawn is drawn again after a kill: none is lost, none doubled.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mgrpo.metric_sums import MetricSums
from mgrpo.training.sources.sample_ahead import SampleAhead, lines_of, with_lines
from mgrpo.training.sources.source import Work
from mgrpo.types import Completion, CompletionId, Problem
from tests.learner.builders import completion

NUM_STEPS, PER_STEP = 8, 2
PROBLEMS = [
    Problem(problem_id=f"p{number}", question="", answer="")
    for number in range(NUM_STEPS * PER_STEP)
]


class InOrder:
    """The lowest source: the next problems of a list."""

    def __init__(self) -> None:
        self.num_drawn = 0

    def next(self, step: int, workers: Any, sums: MetricSums) -> Work:
        first, self.num_drawn = self.num_drawn, self.num_drawn + PER_STEP
        return Work(problems=PROBLEMS[first : self.num_drawn])

    def state_dict(self) -> dict[str, object]:
        return {"in_order": self.num_drawn}

    def load_state_dict(self, states: dict[str, Any]) -> None:
        self.num_drawn = states["in_order"]


@dataclass
class Sampled:
    """Stands for a `Sampling`: its completions are of the policy at the time when they are made."""

    step: int
    work: Work
    workers: Policy
    found: list[Completion] | None = None
    is_cancelled: bool = False

    @property
    def is_done(self) -> bool:
        return self.found is not None

    @property
    def task(self) -> Sampled:
        return self

    def cancel(self) -> None:
        self.is_cancelled = True

    def end(self) -> None:
        if self.found is None:
            self.found = [
                replace(
                    completion("q/1", 1.0, problem_id=problem.problem_id),
                    id=CompletionId(self.step, slot, (0,)),
                    version_spans=((0, self.workers.policy_version),),
                )
                for slot, problem in enumerate(self.work.problems)
            ]

    def completions(self) -> list[Completion]:
        self.end()
        assert self.found is not None
        return self.found


class Policy:
    """Stands for the workers: what the policy has trained on, by step."""

    def __init__(self, trained: Iterable[tuple[int, list[str]]] = ()) -> None:
        self.trained = list(trained)

    @property
    def policy_version(self) -> int:
        return len(self.trained)

    def begin(self, step: int, work: Work) -> Sampled:
        return Sampled(step, work, self)

    def finish(self, sampling: Sampled, sums: MetricSums) -> list[Completion]:
        return sampling.completions()

    def update_beside(self, step: int, work: Work, sums: MetricSums) -> list[Completion]:
        self.trained.append((step, [one.problem_id for one in work.ready]))
        return list(work.ready)

    def broadcast_beside(self, begun: list[Sampled], sums: MetricSums) -> None:
        assert not any(one.is_cancelled for one in begun)


class BufferMachine(RuleBasedStateMachine):
    """A run that trains, saves, and is killed or loses its learner at any time."""

    @initialize(num_ahead=st.integers(1, 3))
    def begin(self, num_ahead: int) -> None:
        self.num_ahead = num_ahead
        self.policy = Policy()
        self.buffer = self.new_buffer()
        self.save()

    def new_buffer(self) -> SampleAhead:
        sources: Any = InOrder()
        return SampleAhead(sources, PROBLEMS, num_ahead=self.num_ahead, num_steps=NUM_STEPS)

    @property
    def step(self) -> int:
        return len(self.policy.trained)

    @rule()
    def trains(self) -> None:
        if self.step == NUM_STEPS:
            return
        workers: Any = self.policy
        sums = MetricSums()
        step = self.step
        work = self.buffer.next(step, workers, sums)
        assert work is not None
        self.buffer.overlapped_step(workers, step, work, sums)  # 4: `check_ages` raises

    @rule(place=st.integers(0, 2))
    def is_sampled(self, place: int) -> None:
        """One of the steps ahead is sampled to its end."""
        ahead: list[Any] = [one.sampling for one in self.buffer.drawn if one.sampling is not None]
        if place < len(ahead):
            ahead[place].end()

    @rule()
    def save(self) -> None:
        drawn = self.buffer.collected()
        state = json.dumps(self.buffer.state_dict())
        lines = [line for one in drawn for line in lines_of(one)]
        self.saved = (state, lines, list(self.policy.trained))

    @rule()
    def is_killed(self) -> None:
        """The newest checkpoint is all that is left; a learner that is lost goes on as this."""
        state, lines, trained = self.saved
        self.buffer.cancel()
        self.policy, self.buffer = Policy(trained), self.new_buffer()
        self.buffer.load_state_dict(json.loads(state))
        self.buffer.drawn = deque(with_lines(self.buffer.drawn, lines))

    @invariant()
    def each_step_has_trained_once_on_its_own_problems(self) -> None:
        expected = [  # 1, 2, 5
            (step, [f"p{step * PER_STEP + slot}" for slot in range(PER_STEP)])
            for step in range(self.step)
        ]
        assert self.policy.trained == expected

    @invariant()
    def what_is_drawn_ahead_is_bounded(self) -> None:
        steps = [one.step for one in self.buffer.drawn]  # 3
        assert steps == list(range(self.step, self.step + len(steps)))
        assert len(steps) <= self.num_ahead and self.step + len(steps) <= NUM_STEPS


TestBufferMachine = BufferMachine.TestCase
TestBufferMachine.settings = settings(max_examples=60, stateful_step_count=25)
