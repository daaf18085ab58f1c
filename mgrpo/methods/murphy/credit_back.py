"""Credit for an attempt that led to a right correction (https://arxiv.org/abs/2511.07833)."""

from __future__ import annotations

from collections import defaultdict
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin
from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigFault, Faults


class CreditSettings(StrictConfig):
    """Keys of credit_back."""

    credit: Literal["max", "mean"] = "max"
    """The best correction's reward where that is above the attempt's own (MaRS), or the mean over
    turns with that of the corrections (MeRS)."""
    discount: float = Field(default=1.0, gt=0, le=1)
    """Factor on what comes from one layer later; the paper's MaRS has none."""


class CreditBack(LearnerPlugin):
    """Rewards an attempt for what its corrections reach, from the last layer to the first.

    Attempts and corrections share one policy, but plain GRPO learns from a correction nothing about
    the attempt that made it possible. Here a wrong attempt that can be corrected is worth more than
    one that cannot. Only the reward is shaped: an attempt stays wrong for `select` and `success`.
    Corrections whose check failed give no credit, nor do those that were never sampled.

    Formula:
        max:   r ← max(r, d max_j r_j)
        mean:  r ← (r + d mean_j r_j) / (S - s + 1)
        r_j: its corrections' rewards, credited before;  s: its layer of S;  d: discount
        An attempt without corrections keeps its reward.

    Metrics:
        credit_back/raised_fraction: share of attempts with corrections whose reward is raised.
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = CreditSettings

    @classmethod
    def faults(cls, settings: CreditSettings, layers: frozenset[int], method: MethodView) -> Faults:
        if len(method.layers) == 1 or len(method.layers) not in layers:
            why = "takes rewards back from the last layer to the first, which is not its own."
            hint = "Leave its layers out, and use a chain that corrects."
            yield ConfigFault("credit", settings.credit, why, hint)

    def shape_rewards(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        places = {one.completion_id: place for place, one in enumerate(batch.completions)}
        corrections: dict[int, list[int]] = defaultdict(list)  # by their attempt's place
        for place, one in enumerate(batch.completions):
            if one.parent_id in places and batch.is_usable[place]:
                corrections[places[one.parent_id]].append(place)
        credited = rewards.clone()
        num_layers, discount = max(self.layers), self.settings.discount
        for place in sorted(corrections, key=lambda place: -batch.completions[place].layer):
            own, later = rewards[place], discount * credited[corrections[place]]
            if self.settings.credit == "max":
                credited[place] = own.maximum(later.max())
            else:
                turns_left = num_layers - batch.completions[place].layer + 1
                credited[place] = (own + later.mean()) / turns_left
        num_raised = sum(float(credited[place]) > float(rewards[place]) for place in corrections)
        batch.metrics["credit_back/raised_fraction"] = (float(num_raised), float(len(corrections)))
        return credited
