"""GRPO-LEAD: shorter right answers earn more, hard problems weigh more
(https://arxiv.org/abs/2504.09696)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, model_validator
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin, RowFilter
from learner.plugin_pairs import WEIGHS_HARD
from learner.row_groups import in_mixed_group, pass_rates, usable_groups
from mgrpo.config.base import StrictConfig, refuse

NUM_SHORTEST = 3
"""The length gate looks at so many of a group's completions (authors' code)."""


class LeadSettings(StrictConfig):
    """Keys of lead."""

    length_strength: NonNegativeFloat = 0.05
    """A right answer one standard deviation longer than the group's right ones earns
    exp(-length_strength) of their reward; 0 ignores length."""
    wrong_reward: float = -1.0
    """Reward of a wrong answer."""
    unanswered_reward: float | None = None
    """Reward where no answer could be read; null: as a wrong one, as in the paper. The authors'
    code gives 0."""
    min_len_gate: NonNegativeInt = 0
    """Length counts only where the three shortest completions of the group are longer than this
    on average, in tokens. The authors' code has 4000; 0 always counts it."""
    weight_floor: NonNegativeFloat = 0.4
    """Factor on advantages of problems that are nearly always solved (a of the paper)."""
    weight_ceiling: NonNegativeFloat = 1.5
    """Factor on those of problems that are hardly ever solved (b)."""
    weight_middle: float = Field(default=0.75, ge=0, le=1)
    """Pass rate at which the factor is half way between (p0)."""
    weight_steepness: NonNegativeFloat = 10.0
    """How fast the factor falls there (k)."""
    drop_all_right: bool = False
    """Leave out every group that is all right. By default, as in the authors' code, only one in
    which all earn the same: where lengths differ and count, they alone give it full-size
    advantages. Groups that are all wrong are always left out."""

    @model_validator(mode="after")
    def check_weights(self) -> LeadSettings:
        if self.weight_floor > self.weight_ceiling:
            why = (
                f"is above weight_ceiling {self.weight_ceiling}: easy problems would weigh more "
                "than hard ones."
            )
            refuse("weight_floor", self.weight_floor, why)
        return self


class Lead(LearnerPlugin):
    """Length-aware rewards, then advantages weighted by difficulty.

    A right answer earns exp(-α z), z being its length among the group's right answers in standard
    deviations. After normalisation a gain is multiplied by w(p), a loss by w(1 - p), with p the
    pass rate and w falling from weight_ceiling to weight_floor: rare successes and rare failures
    count most. Groups that are all wrong, or all right and paid alike, are left out.

    Formula:
        R_i = exp(-length_strength z_i) if right, wrong_reward if not;  z_i: standardised length
        A ← A w(p) where A > 0, A w(1 - p) otherwise,  p the pass rate
        w(p) = weight_floor + (weight_ceiling - weight_floor) / (1 + exp(k (p - weight_middle)))

    Reconstructed:
        z is 0 with fewer than two right answers, where the spread is undefined.
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = LeadSettings
    overlaps: ClassVar[Mapping[str, str]] = {
        "agro": WEIGHS_HARD,
        "group_dro": WEIGHS_HARD,
        "overlong_penalty": "takes length off the reward too: long answers pay twice",
        "nthr": "changes negative advantages by the pass rate too; the factors multiply",
    }

    def filter_rows(self, batch: StepBatch) -> RowFilter:
        """Groups without any difference, by the checks and by length alone."""
        is_kept = in_mixed_group(batch)
        if not self.settings.drop_all_right:
            own = self.own_rewards(batch)
            for places in usable_groups(batch, self.layers):
                is_all_right = bool(batch.is_correct[places].all())
                is_kept[places] |= is_all_right and bool((own[places] != 1).any())
        return RowFilter(
            is_kept=is_kept,
            is_trained=torch.ones_like(is_kept),
            reason="its group is all wrong, or all right and paid alike",
        )

    def shape_rewards(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        # What other plug-ins added to the checks' rewards stays added.
        added = rewards - batch.rewards
        return torch.where(batch.is_usable, self.own_rewards(batch) + added, rewards)

    def own_rewards(self, batch: StepBatch) -> Tensor:
        """[N] by answer and length."""
        settings = self.settings
        shaped = torch.full_like(batch.rewards, settings.wrong_reward)
        if settings.unanswered_reward is not None:
            shaped[is_unanswered(batch)] = settings.unanswered_reward
        for places in usable_groups(batch, self.layers):
            lengths = batch.lengths[places].double()
            is_right = batch.is_correct[places]
            is_gated = lengths.sort().values[:NUM_SHORTEST].mean() <= settings.min_len_gate
            strength = 0.0 if is_gated else settings.length_strength
            factors = length_rewards(lengths, is_right, strength=strength)
            shaped[places] = torch.where(is_right, factors, shaped[places])
        return shaped

    def transform_advantages(self, batch: StepBatch, advantages: Tensor) -> Tensor:
        settings = self.settings
        rates = batch.spread(pass_rates(batch))
        shape = {
            "floor": settings.weight_floor,
            "ceiling": settings.weight_ceiling,
            "middle": settings.weight_middle,
            "steepness": settings.weight_steepness,
        }
        return advantages * torch.where(
            advantages > 0,
            difficulty_weights(rates, **shape),
            difficulty_weights(1 - rates, **shape),
        )


def is_unanswered(batch: StepBatch) -> Tensor:
    """[N] bool: the checks found no answer to grade."""
    return torch.tensor(
        [one.reward is not None and one.reward.status == "unparsable" for one in batch.completions],
        dtype=torch.bool,
    )


def length_rewards(
    lengths: Tensor, is_right: Tensor, *, strength: float, epsilon: float = 1e-6
) -> Tensor:
    """exp(-strength * z) of the right completions of one group, z their standardised length.

    Args:
        lengths: [G] tokens.
        is_right: [G] bool; mean and (sample) standard deviation are over these.

    Returns:
        [G] rewards; those of wrong completions mean nothing. All 1 with fewer than two right.
    """
    if int(is_right.sum()) < 2:
        return torch.ones_like(lengths)
    right = lengths[is_right]
    z = (lengths - right.mean()) / (right.std(correction=1) + epsilon)
    # Far shorter wrong completions would overflow, and their value is not used.
    return torch.where(is_right, torch.exp(-strength * torch.where(is_right, z, 0.0)), 1.0)


def difficulty_weights(
    rates: Tensor, *, floor: float, ceiling: float, middle: float, steepness: float
) -> Tensor:
    """floor + (ceiling - floor) / (1 + exp(steepness * (rate - middle))), falling in the rate."""
    return floor + (ceiling - floor) * torch.sigmoid(-steepness * (rates - middle))
