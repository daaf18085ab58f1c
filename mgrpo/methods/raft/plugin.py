"""RAFT, RAFT++ and Reinforce-Rej: what rejection sampling alone can do (arXiv 2504.11343)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from learner.columns import StepBatch
from learner.estimators import has_variance
from learner.plugin import LearnerPlugin, RowFilter
from learner.plugin_pairs import is_on_policy, others_with, uniform_filter_warnings
from mgrpo.config import RunConfig
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigProblem


class RaftSettings(StrictConfig):
    """Keys of raft."""

    variant: Literal["raft", "raft_plus_plus", "reinforce_rej"]
    """raft and raft_plus_plus train what has a positive reward, with that as its advantage; raft
    without a ratio (`reinforce`), raft_plus_plus with the clipped one. reinforce_rej trains groups
    whose rewards differ, with the rewards themselves, the clipped ratio, and no baseline."""
    reward_map: Literal["zero_one", "plus_minus_one"]
    """zero_one: rewards as they are. plus_minus_one: 2r - 1, so that a wrong answer counts -1;
    without it a wrong answer has no weight, and reinforce_rej is raft_plus_plus on mixed groups."""
    keep_in_denominator: bool = True
    """What is left out still counts in the loss's denominator, as in the authors' code."""


class Raft(LearnerPlugin):
    """Keeps good completions, or informative groups, and takes rewards as advantages.

    The paper's finding: most of what GRPO gains over rejection sampling comes from leaving out
    problems that nobody solved (https://arxiv.org/abs/2504.11343). Shaped rewards change the
    weights; which rows are kept follows the checks alone.

    Formula:
        raft, raft_plus_plus: A = max(r, 0), completions with r > 0;  raft: J = A log p
        reinforce_rej: A = r, groups whose rewards differ;  clipped
        reward_map: plus_minus_one: r ← 2 r - 1

    Reconstructed:
        KL and entropy terms reach what trains. In the authors' code they reach what is left out
        too, which has an advantage of 0 there.
    """

    needs_all_tokens = False
    Settings: ClassVar[type[StrictConfig]] = RaftSettings

    @classmethod
    def problems(
        cls, settings: Any, layers: frozenset[int], config: RunConfig
    ) -> list[ConfigProblem]:
        problems = []
        has_reinforce = any(entry.use == "reinforce" for entry in config.plugins)
        if has_reinforce != (settings.variant == "raft"):
            wants = "maximises A log p" if settings.variant == "raft" else "has a clipped ratio"
            problems.append(
                ConfigProblem(
                    "variant",
                    settings.variant,
                    f"{wants}.",
                    "Remove use: reinforce." if has_reinforce else "Add use: reinforce.",
                )
            )
        for number in sorted(layers):
            advantage = config.layers[number - 1].advantage
            if advantage != "raw_reward":
                problems.append(
                    ConfigProblem(
                        f"(layers.{number - 1}.advantage)",
                        advantage,
                        "rewards are the advantages, and nothing is compared.",
                        "Use advantage: raw_reward.",
                    )
                )
        return problems

    @classmethod
    def warnings(cls, settings: Any, layers: frozenset[int], config: RunConfig) -> list[str]:
        warnings = [
            f"takes rewards as they are for advantages, so what {other} does to them is a weight."
            for other in others_with("shape_rewards", "raft", config)
        ]
        if settings.variant == "raft_plus_plus" and is_on_policy(config):
            warnings.append(
                "settings.variant: raft_plus_plus is raft with objective.updates_per_rollout: 1, "
                "where every ratio is 1."
            )
        if settings.variant == "reinforce_rej":
            warnings += uniform_filter_warnings(config)
            if settings.reward_map == "zero_one":
                warnings.append(
                    "settings.reward_map: zero_one gives wrong answers no weight: this is "
                    "raft_plus_plus on groups that are not uniform."
                )
        return warnings

    def filter_rows(self, batch: StepBatch) -> RowFilter:
        if self.settings.variant == "reinforce_rej":
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
        return mapped if self.settings.variant == "reinforce_rej" else mapped.clamp(min=0)

    def mapped(self, rewards: Tensor) -> Tensor:
        return 2 * rewards - 1 if self.settings.reward_map == "plus_minus_one" else rewards
