"""Problems of the training data, a step's worth at a time."""

from __future__ import annotations

from collections.abc import Sequence

from mgrpo.data.sampler import Sampler
from mgrpo.metric_sums import MetricSums
from mgrpo.records.json_object import JsonObject
from mgrpo.training.sources.source import ProblemSource, Work, Workers
from mgrpo.types import Completion, Problem

MOST_DRAWS = 1000
"""Attempts at finding problems that are not excluded, before excluded ones are drawn again."""


class FreshProblems(ProblemSource):
    """Draws problems by a sampler's indices."""

    state_name = "sampler"

    def __init__(
        self, problems: Sequence[Problem], sampler: Sampler, *, problems_per_step: int
    ) -> None:
        self.all_problems, self.sampler = problems, sampler
        self.problems_per_step = problems_per_step
        self.num_problems = len(problems)
        self.excluded: set[str] = set()

    def take(self, count: int) -> list[Problem]:
        """The next `count` problems; excluded ones only where hardly any other is left."""
        kept: list[Problem] = []
        for _ in range(MOST_DRAWS):
            drawn = self.draw(count - len(kept))
            kept += [one for one in drawn if one.problem_id not in self.excluded]
            if len(kept) == count:
                return kept
        return kept + self.draw(count - len(kept))

    def draw(self, count: int) -> list[Problem]:
        return [self.all_problems[index] for index in self.sampler.take(count)]

    def next(self, step: int, workers: Workers, sums: MetricSums) -> Work:
        return Work(problems=self.take(self.problems_per_step))

    def observe(self, step: int, completions: Sequence[Completion], sums: MetricSums) -> None:
        for name, value in self.sampler.observe(completions).items():
            sums.add(name, value)

    def state_dict(self) -> JsonObject:
        return self.sampler.state_dict()

    def load_state_dict(self, state: JsonObject) -> None:
        self.sampler.load_state_dict(state)
