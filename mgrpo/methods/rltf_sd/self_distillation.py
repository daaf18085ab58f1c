"""Corrections as answers to the problem alone (https://arxiv.org/abs/2602.02482)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from learner.columns import StepBatch
from learner.other_prompts import as_answer_to, root_of
from learner.plugin import LearnerPlugin
from mgrpo.config import CorrectLayer, MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigFault, Faults, LearnerError
from mgrpo.types import EXPERT, Completion

DISTILLED = "self distillation"
"""`augmented_by` of a correction as an answer to the problem alone."""


class DistillationSettings(StrictConfig):
    """Keys of self_distillation."""

    weight: float = Field(default=1.0, gt=0)
    """Factor on the loss of corrections as answers to the problem alone, beside the layer's own."""


class SelfDistillation(LearnerPlugin):
    """Trains corrections once more, as answers to the problem alone.

    What the policy writes when it has read its attempt and what the check says of it, it shall
    write at once. A correction is worth what it is better than the mean first attempt: where
    corrections are no better than these, advantages are 0 on average.

    No engine has sampled a correction under the problem's prompt: the ratio is against the
    learner's own log-probability at the step's start, without importance weights.

    Formula:
        L ← L - weight / N Σ_j mean_t A_j J_t(c_j | q),   A_j = r(c_j) - mean_i r(y_i)
        c_j: the layer's N corrections in the step;  y_i: first attempts at the same problem
        q: the prompt of the first attempts

    Metrics:
        self_distillation/advantage_mean: what corrections are worth above the mean first attempt.
        self_distillation/positive_fraction: share of them that are better than it.
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = DistillationSettings

    @classmethod
    def faults(
        cls, settings: DistillationSettings, layers: frozenset[int], method: MethodView
    ) -> Faults:
        own = [method.layers[number - 1] for number in sorted(layers)]
        correcting = [one for one in own if isinstance(one, CorrectLayer)]
        if not correcting:
            why = "distils corrections, and none of its layers corrects."
            yield ConfigFault("weight", str(settings.weight), why)
        why = "would count a problem as one more parent of the corrections that are distilled."
        for one in correcting:
            if one.denominator == "per_parent":
                path = f"(layers.{method.layers.index(one)}.denominator)"
                yield ConfigFault(path, "per_parent", why, "Use sampled or retained.")

    def added_completions(
        self, completions: Sequence[Completion], parents: Mapping[str, Completion]
    ) -> list[Completion]:
        added = []
        for one in completions:
            is_usable = one.reward is not None and one.reward.is_usable
            if one.layer not in self.layers or one.accepts is not None or not is_usable:
                continue
            first = root_of(one, parents)
            if first.layer != 1:
                raise LearnerError(
                    f"The first attempt of {one.completion_id} was not given, and "
                    "self_distillation trains it as an answer to the prompt of that one. Pass "
                    "first attempts in `completions` or `context`."
                )
            if first is not one:
                weight = self.settings.weight
                added.append(as_answer_to(first, one, weight=weight, augmented_by=DISTILLED))
        return added

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        places = [p for p, one in enumerate(batch.completions) if one.augmented_by == DISTILLED]
        values = batch.rewards[places] - baselines(batch)[places]
        count = float(len(places))
        batch.metrics["self_distillation/advantage_mean"] = (float(values.sum()), count)
        batch.metrics["self_distillation/positive_fraction"] = (float((values > 0).sum()), count)
        is_added = torch.zeros(len(batch.completions), dtype=torch.bool)
        is_added[places] = True
        found = torch.zeros(len(batch.completions), dtype=torch.float64)
        found[places] = values
        return torch.where(batch.spread(is_added), batch.spread(found), advantages)


def baselines(batch: StepBatch) -> Tensor:
    """[N] of what is in the group of first attempts, their mean reward as checked; 0 elsewhere."""
    rewards: dict[str, list[float]] = defaultdict(list)  # by the group of first attempts
    for one in batch.parents.values():
        is_first = one.layer == 1 and one.augmented_by != EXPERT
        if is_first and one.reward is not None and one.reward.is_usable:
            rewards[one.group_key].append(one.reward.value)
    means = {group: sum(values) / len(values) for group, values in rewards.items()}
    return batch.rows([means.get(one.group_key, 0.0) for one in batch.completions])
