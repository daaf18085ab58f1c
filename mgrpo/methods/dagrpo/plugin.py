"""DaGRPO: compare only completions that differ (https://arxiv.org/abs/2512.06337)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from learner.columns import StepBatch
from learner.losses import clipped_objective
from learner.objective_checks import own_objective_problems
from learner.objective_tokens import ObjectiveTokens
from learner.plugin import LearnerPlugin
from learner.plugin_pairs import has_foreign, is_on_policy, unused, used
from learner.row_groups import usable_groups
from mgrpo.config import RunConfig
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigProblem
from mgrpo.methods.dagrpo.distinct_pairs import (
    distinct_by_score,
    distinct_by_tokens,
    pairwise_advantages,
    shaped_probability,
)

OFF_POLICY = "dagrpo/off_policy"


class DagrpoSettings(StrictConfig):
    """Keys of dagrpo."""

    threshold: float = Field(default=0.2, ge=0, le=1)
    """How far apart two completions must be to be compared; 0 compares all, which is GRPO."""
    score_part: str | None = None
    """Name of a check that scores completions from 0 to 1; two are as far apart as their scores.
    Null: 1 minus the cosine of their token counts."""
    gamma: PositiveFloat = 0.1
    """Tokens that were not sampled are trained by p / (p + gamma)."""
    clip_low: float = Field(default=0.2, ge=0, lt=1)
    """Clip range of the tokens that were sampled."""
    clip_high: float = Field(default=0.2, ge=0)
    epsilon: NonNegativeFloat = 1e-6
    """Added to the group's standard deviation."""


class Dagrpo(LearnerPlugin):
    """Leaves pairs of nearly equal completions out of the advantages.

    Two completions that hardly differ and are rewarded differently pull the policy both ways. A
    completion's advantage is the sum of its reward's differences to those that are distinct from
    it; with none, it is 0. Solutions that expert_anchor adds are distinct from everything, and
    their tokens are trained by a shaped probability instead of a ratio.

    Formula:
        A_i = Σ_j K_ij (r_i - r_j) / (G (std r + epsilon)),  K_ij = 1 where i and j are distinct
        tokens that were not sampled: J = A p / (p + gamma); the others: the clipped objective

    Metrics:
        dagrpo/distinct_pairs_fraction: share of a group's pairs that are compared.

    Reconstructed:
        All formulas, from the paper's description, since none of its own is public. The shaped
        probability is LUFFY's (https://arxiv.org/abs/2504.14945).
    """

    needs_all_tokens = False
    Settings: ClassVar[type[StrictConfig]] = DagrpoSettings

    @classmethod
    def problems(
        cls, settings: Any, layers: frozenset[int], config: RunConfig
    ) -> list[ConfigProblem]:
        inert = ("clip_low", "clip_high", "dual_clip")
        problems = own_objective_problems("dagrpo", layers, config, inert=inert)
        checks = [term.check for term in config.rewards.terms]
        if settings.score_part is not None and settings.score_part not in checks:
            problems.append(
                ConfigProblem(
                    "score_part",
                    settings.score_part,
                    f"is none of the recipe's checks: {', '.join(checks)}.",
                )
            )
        return problems

    @classmethod
    def warnings(cls, settings: Any, layers: frozenset[int], config: RunConfig) -> list[str]:
        warnings = []
        adds_text = used(config, "expert_anchor", "guided_error_correction") or has_foreign(config)
        if not adds_text:
            because = "where no plug-in puts text in that was not sampled"
            warnings += unused(settings, "gamma", because=because)
            if settings.threshold == 0:
                warnings.append("settings.threshold: 0 compares all completions: this is GRPO.")
        if is_on_policy(config):
            because = "with objective.updates_per_rollout: 1, where every ratio is 1"
            warnings += unused(settings, "clip_low", "clip_high", because=because)
        if used(config, "supervised_injections"):
            warnings.append(
                "supervised_injections sets the advantages of tokens that were not sampled, and "
                "this trains them by a shaped probability: the two multiply."
            )
        return warnings

    def estimate_advantages(self, batch: StepBatch, rewards: Tensor) -> Tensor | None:
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

    def token_columns(
        self, batch: StepBatch, advantages: Tensor, token_weights: Tensor
    ) -> dict[str, Tensor]:
        return {OFF_POLICY: (~batch.is_sampled).double()}

    def policy_objective(self, tokens: ObjectiveTokens) -> Tensor | None:
        is_off_policy = tokens.columns[OFF_POLICY] > 0
        own = tokens.policy_logprobs
        # Nothing sampled these tokens, so they have no old log-probability. It is taken out before
        # the ratio, since a where() behind it would still multiply 0 by what stands there.
        old = torch.where(is_off_policy, own.detach(), tokens.old_logprobs)
        clipped = clipped_objective(
            own,
            old,
            tokens.advantages,
            clip_low=self.settings.clip_low,
            clip_high=self.settings.clip_high,
        )
        shaped = shaped_probability(own, gamma=self.settings.gamma) * tokens.advantages
        return torch.where(is_off_policy, shaped, clipped)
