"""RAFT, RAFT++ and Reinforce-Rej: what rejection sampling alone can do (arXiv 2504.11343)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from learner.columns import StepBatch
from learner.estimators import has_variance
from learner.plugin import AdvantageEstimator, RowFilter
from mgrpo.config.base import StrictConfig


class RaftSettings(StrictConfig):
    """Keys of raft."""

    keep: Literal["positive", "mixed_groups"] = "positive"
    """positive: completions with a positive reward, which is their advantage: RAFT with the loss
    reinforce, RAFT++ with ppo_clip. mixed_groups: groups whose rewards differ, with the rewards
    themselves and no baseline: Reinforce-Rej with ppo_clip."""
    reward_map: Literal["zero_one", "plus_minus_one"]
    """zero_one: rewards as they are. plus_minus_one: 2r - 1, so that a wrong answer counts -1;
    without it a wrong answer has no weight, and mixed_groups is positive on mixed groups."""
    keep_in_denominator: bool = True
    """What is left out still counts in the loss's denominator, as in the authors' code."""


class Raft(AdvantageEstimator):
    """Keeps good completions, or informative groups, and takes rewards as advantages.

    The paper's finding: most of what GRPO gains over rejection sampling comes from leaving out
    problems without a right completion (https://arxiv.org/abs/2504.11343). Shaped rewards change
    the weights; which rows are kept follows the checks alone.

    Formula:
        keep: positive: A = max(r, 0), completions with r > 0
        keep: mixed_groups: A = r, groups whose rewards differ
        reward_map: plus_minus_one: r ← 2 r - 1

    Reconstructed:
        KL and entropy terms reach what trains. In the authors' code they reach what is left out
        too, which has an advantage of 0 there.
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = RaftSettings

    def filter_rows(self, batch: StepBatch) -> RowFilter:
        if self.settings.keep == "mixed_groups":
            here = batch.in_layers(self.layers) & batch.is_usable
            is_wanted = has_variance(batch.rewards, batch.group_ids, here)
            reason = "all rewards of its group are equal"
        else:
            is_wanted = self.mapped(batch.rewards) > 0
            reason = "its reward is not positive"
        keeps_all = is_wanted | self.settings.keep_in_denominator
        return RowFilter(is_kept=keeps_all, is_trained=is_wanted, reason=reason)

    def estimate_advantages(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        mapped = self.mapped(rewards)
        return mapped if self.settings.keep == "mixed_groups" else mapped.clamp(min=0)

    def mapped(self, rewards: Tensor) -> Tensor:
        return 2 * rewards - 1 if self.settings.reward_map == "plus_minus_one" else rewards
