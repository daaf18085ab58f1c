"""SCoRe's shaped reward (https://arxiv.org/abs/2409.12917)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin
from learner.plugin_pairs import is_z_scored
from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigFault, Faults


class BonusSettings(StrictConfig):
    """Keys of correction_bonus."""

    alpha: float = 10.0
    """Factor on what a correction gained over its attempt."""
    bonus_to: Literal["turn2", "both"] = "turn2"
    """turn2: corrections get it. both: an attempt also gets the mean bonus of its corrections."""


class CorrectionBonus(LearnerPlugin):
    """Pays a correction for what it changed: b = alpha (r(y2) - r(y1)) on top of r(y2).

    Without it training finds the easy way out, a good first try and a second that repeats it. Group
    z-scores take most of alpha away again; with `advantage: raw_reward` (REINFORCE, as in the
    paper) or `advantage: {scale_by_std: false}` it keeps its size.

    Formula:
        r(y2) ← r(y2) + alpha (r(y2) - r(y1)),   y1 the attempt, y2 its correction
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = BonusSettings

    @classmethod
    def faults(cls, settings: BonusSettings, layers: frozenset[int], method: MethodView) -> Faults:
        if max(layers) == 1 and (len(method.layers) == 1 or settings.bonus_to == "turn2"):
            why = "pays for corrections, and none of its layers corrects."
            yield ConfigFault("alpha", str(settings.alpha), why)

    @classmethod
    def warnings(
        cls, settings: BonusSettings, layers: frozenset[int], method: MethodView
    ) -> list[str]:
        return [
            f"layers.{number - 1}.advantage divides by the group's spread, which takes most of "
            "alpha away. Use raw_reward, or {scale_by_std: false}."
            for number in sorted(layers)
            if number > 1 and is_z_scored(method.layers[number - 1])
        ]

    def shape_rewards(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        places = {one.completion_id: place for place, one in enumerate(batch.completions)}
        shaped = rewards.clone()
        bonuses: dict[int, list[float]] = {}  # by the attempt's place
        for place, one in enumerate(batch.completions):
            parent = batch.parents.get(one.parent_id) if one.parent_id is not None else None
            if one.reward is None or parent is None or parent.reward is None:
                continue
            if not (one.reward.is_usable and parent.reward.is_usable):
                continue
            bonus = self.settings.alpha * (one.reward.value - parent.reward.value)
            shaped[place] += bonus
            if parent.completion_id in places:
                bonuses.setdefault(places[parent.completion_id], []).append(bonus)
        if self.settings.bonus_to == "both":
            for place, values in bonuses.items():
                shaped[place] += torch.tensor(values).double().mean()
        return shaped
