"""Which completions train, and why the others do not.

Every usable first attempt trains. From layer 2 on `LaterLayer.select` decides ("correction,
augmentation, selection" of MGRPO, arXiv 2506.04746). Reasons are written for people: they end
up in the recorded rollouts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from mgrpo.config import CorrectLayer, GroupZ, LaterLayer, LayerConfig
from mgrpo.config.advantages import Improvement
from mgrpo.errors import LearnerError
from mgrpo.types import Completion, Reward

TOO_FEW_TO_COMPARE = "fewer than 2 usable completions in its group, so nothing to compare it with"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One completion with all that selection and advantages need to know of it."""

    completion: Completion
    reward: Reward
    parent: Completion | None  # None in layer 1
    group: Hashable  # completions with the same value are compared with each other
    is_success: bool
    reason: str = ""  # why it does not train; "" when it does

    @property
    def is_selected(self) -> bool:
        return not self.reason

    @property
    def parent_key(self) -> str:
        """What `denominator: per_parent` averages over: the parent, or in layer 1 the prompt."""
        return self.completion.parent_id or self.completion.group_key


def select_layer(
    completions: Sequence[Completion], parents: Mapping[str, Completion], layer: LayerConfig
) -> list[Candidate]:
    """Decide for each of one layer's completions whether it trains, in the given order.

    Args:
        completions: all completions of one layer in this step, scored.
        parents: by completion_id, at least those that `layer` has to compare with.
        layer: the layer's section of the recipe.

    Raises:
        LearnerError: a completion has no reward, or its parent is needed and not given.
    """
    candidates = [candidate(completion, parents, layer) for completion in completions]
    usable_groups = defaultdict(list)
    for one in candidates:
        if one.reward.is_usable:
            usable_groups[one.group].append(one)
    return [
        Candidate(
            completion=one.completion,
            reward=one.reward,
            parent=one.parent,
            group=one.group,
            is_success=one.is_success,
            reason=reason_not_to_train(one, usable_groups[one.group], layer),
        )
        for one in candidates
    ]


def candidate(
    completion: Completion, parents: Mapping[str, Completion], layer: LayerConfig
) -> Candidate:
    """Look up the reward, the parent and the group, and say whether this is a success."""
    if completion.reward is None:
        raise LearnerError(
            f"Completion {completion.completion_id} reached the learner without a reward. "
            "Score every completion before the update."
        )
    parent = find_parent(completion, parents, layer)
    return Candidate(
        completion=completion,
        reward=completion.reward,
        parent=parent,
        group=group_of(completion, layer),
        is_success=succeeded(completion.reward, parent, layer),
    )


def needs_parents(layer: CorrectLayer) -> bool:
    """True where the layer compares a correction with the attempt that it corrects."""
    return layer.success != "final_correct" or isinstance(layer.advantage, Improvement)


def find_parent(
    completion: Completion, parents: Mapping[str, Completion], layer: LayerConfig
) -> Completion | None:
    if completion.parent_id is None or not isinstance(layer, CorrectLayer):
        return None
    parent = parents.get(completion.parent_id)
    if needs_parents(layer) and (parent is None or parent.reward is None):
        raise LearnerError(
            f"Layer {layer.name!r} (success: {layer.success}, advantage: {layer.advantage.type}) "
            f"compares with parents, but the scored parent {completion.parent_id} of completion "
            f"{completion.completion_id} was not given. Pass it in `completions` or `context`."
        )
    return parent


def group_of(completion: Completion, layer: LayerConfig) -> Hashable:
    """Layer 1 compares the completions of one prompt; later layers as `group_by` says."""
    is_later = completion.parent_id is not None
    if not is_later or not isinstance(layer, LaterLayer) or layer.group_by == "parent":
        return completion.group_key
    return completion.problem_id if layer.group_by == "query" else "batch"


def succeeded(reward: Reward, parent: Completion | None, layer: LayerConfig) -> bool:
    """Is it a success in the sense of `CorrectLayer.success`? In layer 1: is the answer right?

    A completion or parent whose check failed is no success: nothing is known of it.
    """
    if not reward.is_usable:
        return False
    if not isinstance(layer, CorrectLayer) or layer.success == "final_correct" or parent is None:
        return reward.correct
    if parent.reward is None or not parent.reward.is_usable:
        return False
    if layer.success == "strict_fix":
        return reward.correct and not parent.reward.correct
    return reward.value > parent.reward.value


def reason_not_to_train(one: Candidate, group: Sequence[Candidate], layer: LayerConfig) -> str:
    """Why this completion is left out of the loss, or "". `group`: its usable members."""
    if not one.reward.is_usable:
        return failed_check("the check", one.reward)
    if len(one.completion.token_ids) == 0:
        return "it has no tokens"
    if isinstance(layer, CorrectLayer) and one.parent is not None and needs_parents(layer):
        parent_reward = one.parent.reward
        if parent_reward is not None and not parent_reward.is_usable:
            return failed_check("the check of its parent", parent_reward)
    if isinstance(layer.advantage, GroupZ) and len(group) < 2:
        return TOO_FEW_TO_COMPARE
    if isinstance(layer, LaterLayer) and one.completion.parent_id is not None:
        reason = reason_by_select(one, group, layer)
        if reason:
            return reason
    if layer.loss_weight == 0:
        return f"layer {layer.name!r} has loss_weight 0"
    return ""


def reason_by_select(one: Candidate, group: Sequence[Candidate], layer: LaterLayer) -> str:
    """What `LaterLayer.select` says against a correction, or ""."""
    if layer.select == "none":
        return ""
    if layer.select == "groups_with_success":
        if any(member.is_success for member in group):
            return ""
        whose = {"parent": "this parent", "query": "this problem", "batch": "this step"}
        return f"no correction of {whose[layer.group_by]} succeeded"
    return "" if one.is_success else shortfall(one, layer)


def shortfall(one: Candidate, layer: LaterLayer) -> str:
    """What kept a correction from being a success."""
    if isinstance(layer, CorrectLayer) and layer.success == "improves":
        return "its reward is not above its parent's"
    if not one.reward.correct:
        return "its answer is not right"
    return "its parent was right already, so it fixed nothing"


def failed_check(what: str, reward: Reward) -> str:
    if reward.status == "removed":
        return reward.detail
    return f"{what} failed ({reward.status})"
