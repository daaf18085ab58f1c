"""A source of one's own: problems that nobody has solved are asked again some steps later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from pydantic import PositiveInt

from mgrpo.config.base import StrictConfig
from mgrpo.metric_sums import MetricSums
from mgrpo.training.sources.source import SourcePlugin, Work, Workers
from mgrpo.types import Completion, Problem


class SecondChanceSettings(StrictConfig):
    """Keys of second_chance:SecondChance."""

    after_steps: PositiveInt = 2
    """A problem without a right attempt is asked again after this many steps."""


class SecondChance(SourcePlugin):
    """Asks problems again that no attempt has solved; the rest of a step is fresh problems."""

    Settings: ClassVar[type[StrictConfig]] = SecondChanceSettings
    draws: ClassVar[bool] = True

    def begin(self) -> None:
        self.waiting: list[tuple[int, Problem]] = []  # (step when it is due, problem)
        self.asked: list[Problem] = []  # by the step that is under way

    def next(self, step: int, workers: Workers, sums: MetricSums) -> Work:
        count = self.method.prompts_per_step
        due = [entry for entry in self.waiting if entry[0] <= step][:count]
        self.waiting = [entry for entry in self.waiting if entry not in due]
        again = [problem for _, problem in due]
        self.asked = [*again, *self.fresh.take(count - len(again))]
        sums.add("second_chance/asked_again", len(again))
        return Work(problems=self.asked)

    def observe(self, step: int, completions: Sequence[Completion], sums: MetricSums) -> None:
        self.inner.observe(step, completions, sums)
        solved = {one.problem_id for one in completions if one.layer == 1 and one.is_correct}
        due = step + self.settings.after_steps
        unsolved = [one for one in self.asked if one.problem_id not in solved]
        self.waiting += [(due, problem) for problem in unsolved]
        sums.add("second_chance/waiting", len(self.waiting))

    def state_dict(self) -> list[Any]:
        return [[due, asdict(problem)] for due, problem in self.waiting]

    def load_state_dict(self, state: list[Any]) -> None:
        self.waiting = [(due, Problem(**problem)) for due, problem in state]
