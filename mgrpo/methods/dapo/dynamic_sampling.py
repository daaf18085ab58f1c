"""Refills a step until every problem in it, or a share of them, has something to learn from (DAPO,
https://arxiv.org/abs/2503.14476). Right and wrong answers count, never shaped rewards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from mgrpo.config.base import StrictConfig
from mgrpo.config.resume import OnResume
from mgrpo.errors import LearnerError
from mgrpo.metric_sums import MetricSums
from mgrpo.training.sources.source import SourcePlugin, Work, Workers
from mgrpo.types import Completion, CompletionId, Problem


def is_mixed(attempts: Sequence[Completion]) -> bool:
    """Neither all right nor all wrong, among those whose checks worked."""
    correctness = {one.is_correct for one in attempts if one.reward and one.reward.is_usable}
    return len(correctness) == 2


class DynamicSamplingSettings(StrictConfig):
    """Keys of dynamic."""

    max_rounds: PositiveInt = 10
    """Most problems that are drawn for a step, as a multiple of prompts_per_step."""
    min_mixed_fraction: float = Field(default=1.0, gt=0, le=1)
    """Sampling stops once this share of a step's problems is mixed; others fill the rest of the
    step. GPG (arXiv 2504.02546) has 0.6, and scales advantages up for what the others lack."""
    when_exhausted: Literal["train", "stop"] = "train"
    """With too few mixed groups among all that may be drawn: train on the existing ones, or stop
    the run."""


class StepDraw:
    """The problems of a step, in the order in which they were drawn.

    A group that turns out uniform brings in the next problem at once, so engines are busy until
    enough are mixed. Which problems are drawn does not depend on which groups are done first: it is
    the smallest number D with  D = max(wanted, needed + uniform groups among the first D).

    Args:
        take: draws so many problems.
        wanted: problems of a step.
        needed: of which so many are to be mixed.
        most: problems that may be drawn.
    """

    def __init__(
        self, take: Callable[[int], list[Problem]], *, wanted: int, needed: int, most: int
    ) -> None:
        self.take, self.needed, self.most = take, needed, most
        self.problems = take(wanted)  # by slot
        self.num_uniform = 0

    def refill(self, tree: CompletionId, attempts: Sequence[Completion]) -> list[Problem]:
        """What is drawn once another group is done: a problem, or nothing."""
        self.num_uniform += not is_mixed(attempts)
        is_short = len(self.problems) < self.needed + self.num_uniform
        if not is_short or len(self.problems) >= self.most:
            return []
        drawn = self.take(1)
        self.problems += drawn
        return drawn


class DynamicSampling(SourcePlugin):
    """Samples first attempts until enough groups are mixed, neither all right nor all wrong; the
    other layers go on from those.

    Each uniform group is replaced as soon as it is known, while others are still being sampled.
    The kept groups are the mixed ones in the order in which they were drawn, whichever was done
    first, so a step is the same on every run and after a resume.

    Metrics:
        dynamic_sampling/drawn: problems that were sampled to fill the step.
        dynamic_sampling/kept_fraction: share of the sampled groups that are kept.
    """

    Settings: ClassVar[type[StrictConfig]] = DynamicSamplingSettings
    draws: ClassVar[bool] = True
    needs_joint: ClassVar[bool] = True
    samples: ClassVar[bool] = True
    # What is done did not need another value of keys that stop a run.
    on_resume: ClassVar[Mapping[str, OnResume]] = MappingProxyType(
        {"max_rounds": "onward", "when_exhausted": "onward"}
    )

    def next(self, step: int, workers: Workers, sums: MetricSums) -> Work:
        """
        Raises:
            LearnerError: too few groups are mixed, and the recipe says stop.
        """
        settings, wanted = self.settings, self.method.prompts_per_step
        # The small number keeps 0.6 x 5 at 3, which in floating point is a little more.
        needed = math.ceil(settings.min_mixed_fraction * wanted - 1e-9)
        most = settings.max_rounds * wanted
        draw = StepDraw(self.fresh.take, wanted=wanted, needed=needed, most=most)
        first = list(draw.problems)
        sampled = workers.sample(step, first, sums, layers=range(1, 2), refill=draw.refill)
        groups: dict[int, list[Completion]] = {}
        for one in sampled:
            groups.setdefault(one.id.slot, []).append(one)
        num_drawn = len(draw.problems)
        kept = [slot for slot in range(num_drawn) if is_mixed(groups[slot])]
        sums.add("dynamic_sampling/drawn", num_drawn)
        sums.add("dynamic_sampling/kept_fraction", len(kept), num_drawn)
        if len(kept) < needed and settings.when_exhausted == "stop":
            raise LearnerError(
                f"With {num_drawn} problems drawn, only {len(kept)} of {needed} of step {step} "
                "have both right and wrong attempts. Change the data, raise the source's "
                "max_rounds, or set its when_exhausted to train."
            )
        if settings.min_mixed_fraction < 1:
            uniform = [slot for slot in range(num_drawn) if slot not in kept]
            kept = sorted([*kept, *uniform[len(uniform) - (wanted - len(kept)) :]])
        attempts = [one for slot in kept for one in groups[slot]]
        num_layers = len(self.method.layers)
        if num_layers == 1:
            return Work(ready=attempts)
        return Work(
            ready=attempts,
            problems=[draw.problems[slot] for slot in kept],
            slots=kept,
            layers=range(2, num_layers + 1),
        )
