"""E-GRPO: wrong answers that came close earn something (https://arxiv.org/abs/2510.24694)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from learner.columns import StepBatch
from learner.plugin import LearnerPlugin, RowFilter
from learner.plugin_pairs import unknown_check_faults
from learner.row_groups import usable_groups
from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.errors import Faults
from mgrpo.types import Completion

SOURCE = "problem_entities"


class EntityRewardSettings(StrictConfig):
    """Keys of entity_reward."""

    strength: float = Field(default=0.3, ge=0, lt=1)
    """Reward of a wrong answer that names as many entities as the best of its group does; a right
    answer earns 1. 0 gives wrong answers nothing."""
    match: Literal["verbatim", "whole_word"] = "verbatim"
    """verbatim: the entity's letters stand in the text. whole_word: and are not part of a longer
    word or number."""
    format_part: str | None = None
    """Name of the check whose value 0 is a format error. Null: only an answer that cannot be read
    is one."""


class EntityReward(LearnerPlugin):
    """Rewards wrong answers by the entities of the problem that their reasoning names.

    A rollout that found half of what the question was built from is better than one that found
    nothing, although both are wrong. The reward is 1 if right, strength * (match rate over the
    group's highest) if wrong, 0 on a format error or when tokens ran out. Completions that ran out
    count in their group's statistics and carry no loss. Text that a plug-in put in does not count:
    such a completion's match rate is 0. (Other methods called E-GRPO are about entropy.)

    Formula:
        γ_i = share of the problem's entities that completion i names
        R_i = 1 if right, strength · γ_i / max_group γ if wrong, 0 on a format error or cut off

    Metrics:
        entities/match_rate: mean of γ over completions.
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = EntityRewardSettings
    needs: ClassVar[tuple[str, ...]] = (SOURCE,)

    @classmethod
    def faults(
        cls, settings: EntityRewardSettings, layers: frozenset[int], method: MethodView
    ) -> Faults:
        return unknown_check_faults(method.rewards, "format_part", settings.format_part)

    def filter_rows(self, batch: StepBatch) -> RowFilter | None:
        is_whole = torch.tensor([not one.is_truncated for one in batch.completions])
        return RowFilter(
            is_kept=torch.ones_like(is_whole), is_trained=is_whole, reason="it ran out of tokens"
        )

    def shape_rewards(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        matches = batch.rows(
            [match_rate(one, match=self.settings.match) for one in batch.completions]
        )
        is_void = torch.tensor([self.is_void(one) for one in batch.completions])
        shaped = torch.zeros_like(rewards)
        for places in usable_groups(batch, self.layers):
            shaped[places] = entity_rewards(
                matches[places],
                batch.is_correct[places],
                is_void[places],
                strength=self.settings.strength,
            )
        here = batch.in_layers(self.layers) & batch.is_usable
        batch.metrics["entities/match_rate"] = (float(matches[here].sum()), float(here.sum()))
        # What other plug-ins added to the checks' rewards stays added.
        return torch.where(batch.is_usable, shaped + (rewards - batch.rewards), rewards)

    def is_void(self, one: Completion) -> bool:
        """True where a reward is 0 whatever was named: format error, or out of tokens."""
        assert one.reward is not None, "the batch holds scored completions"
        part = self.settings.format_part
        has_format_error = part is not None and one.reward.parts.get(part, 0.0) == 0
        return one.is_truncated or one.reward.status == "unparsable" or has_format_error


def match_rate(one: Completion, *, match: Literal["verbatim", "whole_word"]) -> float:
    """Share of the problem's entities that the policy's own text names; 0 where there are none."""
    entities: Sequence[str] = one.metadata.get("entities", [])
    if not entities or not one.is_sampled.all():
        return 0.0
    if match == "verbatim":
        named = [entity in one.text for entity in entities]
    else:
        named = [
            re.search(rf"(?<!\w){re.escape(entity)}(?!\w)", one.text) is not None
            for entity in entities
        ]
    return sum(named) / len(entities)


def entity_rewards(
    matches: Tensor, is_right: Tensor, is_void: Tensor, *, strength: float
) -> Tensor:
    """1 if right, strength * match / highest match of the group if wrong, 0 if void.

    Args:
        matches: [G] match rates of one group.
        is_right, is_void: [G] bool.

    Returns:
        [G] rewards. Without any match in the group the wrong ones get 0.
    """
    highest = matches.max()
    relative = matches / highest if highest > 0 else torch.zeros_like(matches)
    rewards = torch.where(is_right, 1.0, strength * relative)
    return torch.where(is_void, 0.0, rewards)
