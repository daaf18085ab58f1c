"""Refills a step until every problem in it, or a share of them, has something to learn from (DAPO,
https://arxiv.org/abs/2503.14476). Judged by whether answers are right, never by shaped rewards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from mgrpo.config.base import StrictConfig
from mgrpo.config.resume import OnResume
from mgrpo.errors import LearnerError
from mgrpo.metric_sums import MetricSums
from mgrpo.training.sources.source import SourcePlugin, Work, Workers
from mgrpo.types import Completion, Problem


def is_mixed(attempts: Sequence[Completion]) -> bool:
    """Neither all right nor all wrong, among those whose checks worked."""
    verdicts = {one.is_correct for one in attempts if one.reward and one.reward.is_usable}
    return len(verdicts) == 2


class DynamicSamplingSettings(StrictConfig):
    """Keys of dynamic."""

    max_rounds: PositiveInt = 10
    """Maximum rounds of sampling; each draws as many problems as are missing."""
    min_mixed_fraction: float = Field(default=1.0, gt=0, le=1)
    """Sampling stops once this share of a step's problems is mixed; others fill the rest of the
    step. GPG (arXiv 2504.02546) has 0.6, and scales advantages up for what the others lack."""
    when_exhausted: Literal["train", "stop"] = "train"
    """After the last round with too few: train on the existing ones, or stop the run."""


class DynamicSampling(SourcePlugin):
    """Samples first attempts until enough groups are mixed, neither all right nor all wrong; the
    other layers go on from those.

    Metrics:
        dynamic_sampling/rounds: rounds of sampling that filled the step.
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
            LearnerError: too few groups are mixed after the last round, and the recipe says stop.
        """
        settings, wanted = self.settings, self.method.prompts_per_step
        # The small number keeps 0.6 x 5 at 3, which in floating point is a little more.
        needed = math.ceil(settings.min_mixed_fraction * wanted - 1e-9)
        kept: dict[int, Problem] = {}
        uniform: dict[int, Problem] = {}
        groups: dict[int, list[Completion]] = {}
        num_sampled = num_rounds = 0
        while len(kept) < needed and num_rounds < settings.max_rounds:
            problems = self.fresh.take(wanted - len(kept))
            slots = range(num_sampled, num_sampled + len(problems))
            sampled = workers.sample(step, problems, sums, layers=range(1, 2), slots=slots)
            num_sampled, num_rounds = num_sampled + len(problems), num_rounds + 1
            for slot, problem in zip(slots, problems, strict=True):
                groups[slot] = [one for one in sampled if one.id.slot == slot]
                (kept if is_mixed(groups[slot]) else uniform)[slot] = problem
        sums.add("dynamic_sampling/rounds", num_rounds)
        sums.add("dynamic_sampling/kept_fraction", len(kept), num_sampled)
        if len(kept) < needed and settings.when_exhausted == "stop":
            raise LearnerError(
                f"After {num_rounds} rounds only {len(kept)} of {needed} problems of step {step} "
                f"have both right and wrong attempts ({num_sampled} were sampled). Change the "
                "data, raise the source's max_rounds, or set its when_exhausted to train."
            )
        if settings.min_mixed_fraction < 1:
            newest = sorted(uniform, reverse=True)[: max(0, wanted - len(kept))]
            kept |= {slot: uniform[slot] for slot in newest}
        kept = dict(sorted(kept.items()))
        attempts = [one for slot in kept for one in groups[slot]]
        num_layers = len(self.method.layers)
        if num_layers == 1:
            return Work(ready=attempts)
        return Work(
            ready=attempts,
            problems=list(kept.values()),
            slots=list(kept),
            layers=range(2, num_layers + 1),
        )
