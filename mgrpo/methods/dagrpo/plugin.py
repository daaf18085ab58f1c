"""DaGRPO: compare only completions that differ (https://arxiv.org/abs/2512.06337)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import AdvantageEstimator
from learner.plugin_pairs import unknown_check_faults
from learner.row_groups import usable_groups
from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.errors import Faults
from mgrpo.methods.dagrpo.distinct_pairs import (
    distinct_by_score,
    distinct_by_tokens,
    pairwise_advantages,
)


class DagrpoSettings(StrictConfig):
    """Keys of dagrpo."""

    threshold: float = Field(default=0.2, ge=0, le=1)
    """Minimum distance of two completions for a comparison; 0 compares all, as in GRPO."""
    score_part: str | None = None
    """Name of a check that scores completions from 0 to 1; two are as far apart as their scores.
    Null: 1 minus the cosine of their token counts."""
    epsilon: NonNegativeFloat = 1e-6
    """Added to the group's standard deviation."""


class Dagrpo(AdvantageEstimator):
    """Leaves pairs of nearly equal completions out of the advantages.

    Two completions that hardly differ and are rewarded differently pull the policy both ways. A
    completion's advantage is the sum of its reward's differences to those that are distinct from
    it; with none, it is 0. Solutions that expert_anchor adds are distinct from everything; the
    loss shaped_probability trains their tokens.

    Formula:
        A_i = Σ_j K_ij (r_i - r_j) / (G (std r + epsilon)),  K_ij = 1 where i and j are distinct

    Metrics:
        dagrpo/distinct_pairs_fraction: share of a group's pairs that are compared.

    Reconstructed:
        The formula, from the paper's description, since none of its own is public.
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = DagrpoSettings

    @classmethod
    def faults(cls, settings: DagrpoSettings, layers: frozenset[int], method: MethodView) -> Faults:
        return unknown_check_faults(method.rewards, "score_part", settings.score_part)

    def estimate_advantages(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        found = torch.zeros_like(rewards)
        num_distinct = num_pairs = 0
        for places in usable_groups(batch, self.layers):
            is_distinct = self.distinct_pairs(batch, places)
            found[places] = pairwise_advantages(
                rewards[places], is_distinct, epsilon=self.settings.epsilon
            )
            size = len(places)
            num_distinct += int(is_distinct.sum() - is_distinct.diagonal().sum())
            num_pairs += size * (size - 1)
        batch.metrics["dagrpo/distinct_pairs_fraction"] = (float(num_distinct), float(num_pairs))
        return found

    def distinct_pairs(self, batch: StepBatch, places: list[int]) -> Tensor:
        """[G, G] bool of one group."""
        own, members = self.settings, [batch.completions[place] for place in places]
        if own.score_part is None:
            is_distinct = distinct_by_tokens(
                [one.token_ids.tolist() for one in members], threshold=own.threshold
            )
        else:
            scores = [one.reward.parts[own.score_part] for one in members if one.reward is not None]
            is_distinct = distinct_by_score(batch.rows(scores), threshold=own.threshold)
        is_expert = torch.tensor(
            [one.sampled_mask is not None and not one.sampled_mask.any() for one in members]
        )
        return is_distinct | is_expert[:, None] | is_expert[None, :]
