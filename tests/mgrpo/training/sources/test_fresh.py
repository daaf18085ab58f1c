"""Which problems are drawn, and which are left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mgrpo.data.sampler import ShufflingSampler
from mgrpo.metric_sums import MetricSums
from mgrpo.training.sources.fresh import FreshProblems
from mgrpo.types import Completion, Problem

PROBLEMS = [Problem(problem_id=f"p{n}", question=f"q{n}", answer=str(n)) for n in range(4)]
NOBODY: Any = None


class InOrder:
    """Indices in their order, endlessly; every domain is observed with chance 0.25."""

    def __init__(self) -> None:
        self.num_drawn = 0
        self.observed: list[int] = []

    def take(self, n: int) -> list[int]:
        first, self.num_drawn = self.num_drawn, self.num_drawn + n
        return [number % 4 for number in range(first, first + n)]

    def observe(self, completions: Sequence[Completion]) -> dict[str, float]:
        self.observed.append(len(completions))
        return {"sampler/d": 0.25}

    def state_dict(self) -> dict[str, Any]:
        return {"num_drawn": self.num_drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_drawn = state["num_drawn"]


def names(problems: Sequence[Problem]) -> list[str]:
    return [one.problem_id for one in problems]


def test_a_step_gets_the_next_problems_of_the_sampler() -> None:
    source = FreshProblems(PROBLEMS, InOrder(), problems_per_step=3)
    assert names(source.next(0, NOBODY, MetricSums()).problems) == ["p0", "p1", "p2"]
    assert names(source.next(1, NOBODY, MetricSums()).problems) == ["p3", "p0", "p1"]


def test_excluded_problems_are_not_drawn_again() -> None:
    sampler = InOrder()
    source = FreshProblems(PROBLEMS, sampler, problems_per_step=3)
    source.excluded = {"p1", "p2"}
    assert names(source.take(3)) == ["p0", "p3", "p0"]
    assert sampler.num_drawn == 5


def test_where_everything_is_excluded_it_is_drawn_again() -> None:
    source = FreshProblems(PROBLEMS, InOrder(), problems_per_step=3)
    source.excluded = {one.problem_id for one in PROBLEMS}
    assert len(source.take(2)) == 2


def test_the_sampler_sees_a_steps_completions_and_its_chances_are_measured() -> None:
    sampler, sums = InOrder(), MetricSums()
    one: Any = object()
    FreshProblems(PROBLEMS, sampler, problems_per_step=3).observe(0, [one, one], sums)
    assert sampler.observed == [2] and sums.means() == {"sampler/d": 0.25}


def test_the_state_is_the_samplers_own() -> None:
    """As in checkpoints of before there were sources."""
    source = FreshProblems(PROBLEMS, ShufflingSampler(4, seed=1), problems_per_step=3)
    source.take(3)
    other = FreshProblems(PROBLEMS, ShufflingSampler(4, seed=1), problems_per_step=3)
    other.load_state_dict(source.state_dict())
    assert names(other.take(6)) == names(source.take(6))
