"""Refinements beside first attempts (https://arxiv.org/abs/2506.03106)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import PositiveInt
from torch import Tensor

from learner.columns import StepBatch
from learner.other_prompts import as_answer_to, root_of
from learner.plugin import LearnerPlugin
from learner.row_groups import usable_groups
from mgrpo.config import CorrectLayer, MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigFault, Faults, LearnerError, must_be
from mgrpo.plugin import names_in
from mgrpo.types import Completion

REFINED = "refinement"
"""`augmented_by` of a refinement as an answer to the problem alone."""


class RefinedGroupSettings(StrictConfig):
    """Keys of refined_group."""

    per_problem: PositiveInt = 1
    """Refinements that join the attempts at each problem: right ones first, else those with the
    highest reward; of equals the earlier."""


class RefinedGroup(LearnerPlugin):
    """Puts the best refinement of each problem into the group of its first attempts.

    It trains as an answer to the problem alone, as if the policy had found it without the check's
    word, and is compared with the attempts: where all of these are wrong and it is right, the
    problem teaches all the same. No engine sampled it for that prompt, so it needs an objective
    without a ratio: the loss shaped_probability has one, which favours tokens that the policy finds
    unlikely.

    Formula:
        A_i = r_i - mean of r over y_1, ..., y_n, c
        y_i: first attempts at q;  c: the refinement of one of them with the highest reward
        attempts: the loss's J;  c, as an answer to q: J = A p / (p + gamma)

    Metrics:
        refined_group/right_fraction: share of the refinements in groups that are right.
        refined_group/rescued_fraction: share of groups without a right attempt that get a right
            refinement.
    """

    by_tree = True
    Settings: ClassVar[type[StrictConfig]] = RefinedGroupSettings
    needs: ClassVar[tuple[str, ...]] = ("shaped_probability",)

    @classmethod
    def faults(
        cls, settings: RefinedGroupSettings, layers: frozenset[int], method: MethodView
    ) -> Faults:
        corrects = any(isinstance(method.layers[number - 1], CorrectLayer) for number in layers)
        if 1 not in layers or not corrects:
            why = "puts corrections among first attempts: it needs both layers."
            yield ConfigFault("(layers)", str(sorted(layers)), why, "Leave `layers` out.")
        why = "compares attempts and corrections, and an update has those of one layer."
        order = method.objective.update_order.type
        yield from must_be("(objective.update_order)", order, "joint", why)
        other = "self_distillation"
        if other in names_in(method):
            why = "trains the same corrections as answers to the problem, too."
            yield ConfigFault("(plugins)", other, why, f"Use refined_group or {other}.")

    def added_completions(
        self, completions: Sequence[Completion], parents: Mapping[str, Completion]
    ) -> list[Completion]:
        refined: dict[str, list[Completion]] = defaultdict(list)  # by the problem's tree
        for one in completions:
            is_usable = one.reward is not None and one.reward.is_usable
            is_refinement = one.parent_id is not None and one.accepts is None
            if is_refinement and is_usable and one.layer in self.layers:
                refined[root_of(one, parents).group_key].append(one)
        return [
            as_member_of(root_of(one, parents), one)
            for family in refined.values()
            for one in sorted(family, key=rank_of)[: self.settings.per_problem]
        ]

    def shape_rewards(self, batch: StepBatch, rewards: Tensor) -> Tensor:
        num_added = num_right = num_failed = num_rescued = 0
        for places in usable_groups(batch, frozenset({1})):
            members = [batch.completions[place] for place in places]
            added = [one for one in members if one.augmented_by == REFINED]
            attempts = [one for one in members if one.augmented_by != REFINED]
            num_added += len(added)
            num_right += sum(one.is_correct for one in added)
            if added and not any(one.is_correct for one in attempts):
                num_failed += 1
                num_rescued += any(one.is_correct for one in added)
        batch.metrics["refined_group/right_fraction"] = (float(num_right), float(num_added))
        batch.metrics["refined_group/rescued_fraction"] = (float(num_rescued), float(num_failed))
        return rewards


def rank_of(one: Completion) -> tuple[float, tuple[int, ...]]:
    """Lowest first: the highest reward, of equals the earlier."""
    assert one.reward is not None, "only what was scored is ranked"
    return -one.reward.value, one.id.path


def as_member_of(first: Completion, one: Completion) -> Completion:
    """A refinement as one more first attempt: in its group, and in the layer's denominator.

    Raises:
        LearnerError: the first attempt was not given.
    """
    if first.layer != 1:
        raise LearnerError(
            f"The first attempt of {one.completion_id} was not given, and refined_group compares "
            "the two. Pass first attempts in `completions`."
        )
    return replace(as_answer_to(first, one, augmented_by=REFINED), layer=1, counts_as=1.0)
