"""From scored completions to training rows: advantages, selection, and the loss's denominators.

Pure and deterministic, without a model. The whole loss of a step is

    sum over rows of  token_weight * sum over the row's tokens of  token_loss

so every denominator (how many completions, how many tokens, the layer's loss_weight) is
worked out here once, over the whole step. Ranks, micro-batches and packing then cannot change
the gradient: each only adds up its share of one sum.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.advantages import (
    ZERO_STD_TOLERANCE,
    const_positive_advantages,
    group_advantages,
    improvement_advantages,
)
from learner.denominators import token_weights
from learner.selection import Judged, select_layer
from mgrpo.config import AdvantageConfig, LayerConfig, ObjectiveConfig
from mgrpo.errors import LearnerError
from mgrpo.types import Completion, Verdict

Metrics = dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """One completion that trains."""

    completion_id: str
    layer: int
    prompt_token_ids: list[int]
    token_ids: list[int]  # [T], the tokens that train
    rollout_logprobs: list[float]  # [T], nats
    advantage: float
    token_weight: float  # factor on each of its token losses: loss_weight / denominators

    @property
    def input_token_ids(self) -> list[int]:
        """What the model reads: the last token is predicted, never read."""
        return self.prompt_token_ids + self.token_ids[:-1]

    @property
    def num_input_tokens(self) -> int:
        return len(self.prompt_token_ids) + len(self.token_ids) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingBatch:
    """What one update trains on, and the account of every completion."""

    rows: list[TrainingRow]  # of selected completions only
    verdicts: list[Verdict]  # one per completion, in the order given
    metrics: Metrics  # name: (sum, count)
    notes: list[str]  # for people: settings that took the signal away


def build_batch(
    completions: Sequence[Completion],
    layers: Sequence[LayerConfig],
    objective: ObjectiveConfig,
    *,
    context: Sequence[Completion] = (),
) -> TrainingBatch:
    """Turn one step's scored completions into weighted training rows.

    Args:
        completions: of any layers, each scored. Groups must be whole.
        layers: the chain; a completion's `layer` is 1 for the first.
        objective: advantage and KL settings. Selected rows with advantage 0 are dropped when
            there is no KL penalty, since their loss and its gradient are exactly 0.
        context: parents that do not train now but that corrections may be compared with.

    Raises:
        LearnerError: a completion is unscored, inconsistent, given twice, or of an unknown layer.
    """
    check_completions(completions, num_layers=len(layers))
    parents = {one.completion_id: one for one in (*context, *completions)}
    rows: list[TrainingRow] = []
    metrics: Metrics = {}
    notes: list[str] = []
    verdicts: dict[str, Verdict] = {}
    for number, layer in enumerate(layers, start=1):
        members = [one for one in completions if one.layer == number]
        if not members:
            continue
        judged = select_layer(members, parents, layer)
        advantages = layer_advantages(judged, number, layer, objective.advantage)
        weights = token_weights(judged, layer)
        metrics |= layer_metrics(judged, advantages, number)
        notes += layer_notes(judged, advantages, number, layer)
        for one, advantage, weight in zip(judged, advantages, weights, strict=True):
            verdicts[one.completion.completion_id] = verdict(one, advantage)
            if one.is_selected and (advantage != 0 or objective.kl.weight > 0):
                rows.append(training_row(one.completion, advantage, weight))
    ordered = [verdicts[one.completion_id] for one in completions]
    return TrainingBatch(rows=rows, verdicts=ordered, metrics=metrics, notes=notes)


def check_completions(completions: Sequence[Completion], *, num_layers: int) -> None:
    """Refuse what would train silently on nonsense."""
    repeated = [
        name for name, n in Counter(one.completion_id for one in completions).items() if n > 1
    ]
    if repeated:
        raise LearnerError(f"Completion {repeated[0]} was given twice; it would count twice.")
    for one in completions:
        where = f"Completion {one.completion_id}"
        if not 1 <= one.layer <= num_layers:
            raise LearnerError(f"{where} is of layer {one.layer}; the chain has {num_layers}.")
        if len(one.token_ids) != len(one.rollout_logprobs):
            raise LearnerError(
                f"{where} has {len(one.token_ids)} tokens but {len(one.rollout_logprobs)} "
                "rollout log-probabilities; the engine must report one per sampled token."
            )
        if not one.prompt_token_ids:
            raise LearnerError(f"{where} has an empty prompt, so its first token has no context.")
        if one.reward is not None and not math.isfinite(one.reward.value):
            raise LearnerError(
                f"{where} has reward {one.reward.value}. Rewards must be finite: correct the "
                "reward function, or let it raise, which leaves the completion out."
            )


def layer_advantages(
    judged: Sequence[Judged], number: int, layer: LayerConfig, config: AdvantageConfig
) -> list[float]:
    """The advantage of each completion of one layer; 0 where none can be computed."""
    advantages = [0.0] * len(judged)
    if layer.advantage == "improvement" and number == 1:
        raise LearnerError(
            f"layers.0.advantage is improvement, but layer {layer.name!r} is the first: there is "
            "no parent to improve on. Use group_z."
        )
    for indices in comparable_groups(judged, layer):
        members = [judged[index] for index in indices]
        values = member_advantages(members, layer, config)
        for index, value in zip(indices, values.tolist(), strict=True):
            advantages[index] = value
    return advantages


def comparable_groups(judged: Sequence[Judged], layer: LayerConfig) -> list[list[int]]:
    """Indices of the completions whose rewards are compared, one list per group.

    Completions whose check failed are in none. With success_only_pre_norm only the successes
    are compared, which takes the baseline away; every other choice keeps the whole group.
    """
    is_pre_norm = layer.select == "success_only_pre_norm"
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, one in enumerate(judged):
        is_correction = one.completion.parent_id is not None
        if one.reward.is_usable and not (is_pre_norm and is_correction and not one.is_success):
            groups[one.group].append(index)
    return list(groups.values())


def member_advantages(
    members: Sequence[Judged], layer: LayerConfig, config: AdvantageConfig
) -> Tensor:
    """[group] float64 advantages of one group's usable members."""
    if layer.advantage == "const_positive":
        return const_positive_advantages(torch.tensor([one.is_success for one in members]))
    rewards = reward_values(members)
    if layer.advantage == "improvement":
        return improvement_advantages(rewards, parent_reward_values(members))
    if len(members) < 2:
        return torch.zeros_like(rewards)
    return group_advantages(
        rewards, scale_by_std=config.scale_by_std, ddof=config.ddof, epsilon=config.epsilon
    )


def reward_values(members: Iterable[Judged]) -> Tensor:
    return torch.tensor([one.reward.value for one in members], dtype=torch.float64)


def parent_reward_values(members: Sequence[Judged]) -> Tensor:
    """[group] rewards of the parents. Where a parent's check failed, the member's own reward
    stands in: the improvement is then 0, and selection has left that member out."""
    values = []
    for one in members:
        known = one.parent.reward if one.parent is not None else None
        values.append(known.value if known is not None and known.is_usable else one.reward.value)
    return torch.tensor(values, dtype=torch.float64)


def layer_metrics(judged: Sequence[Judged], advantages: Sequence[float], number: int) -> Metrics:
    """How much signal the layer holds, as (sum, count)."""
    groups: dict[Hashable, list[Judged]] = defaultdict(list)
    for one in judged:
        if one.reward.is_usable:
            groups[one.group].append(one)
    spreads = [reward_values(group).std(correction=0) for group in groups.values()]
    num_equal = sum(float(spread) <= ZERO_STD_TOLERANCE for spread in spreads)
    num_selected = sum(one.is_selected for one in judged)
    magnitude = sum(
        abs(value) for one, value in zip(judged, advantages, strict=True) if one.is_selected
    )
    return {
        f"layer{number}/zero_variance_fraction": (float(num_equal), float(len(groups))),
        f"layer{number}/selected_fraction": (float(num_selected), float(len(judged))),
        f"layer{number}/advantage_abs_mean": (magnitude, float(num_selected)),
    }


def layer_notes(
    judged: Sequence[Judged], advantages: Sequence[float], number: int, layer: LayerConfig
) -> list[str]:
    """Warn where filtering before normalising left every retained advantage at 0."""
    kept = [value for one, value in zip(judged, advantages, strict=True) if one.is_selected]
    is_degenerate = layer.select == "success_only_pre_norm" and number > 1
    if not is_degenerate or not kept or any(kept):
        return []
    return [
        f"Layer {number} ({layer.name}) kept {len(kept)} corrections, all with advantage 0: "
        "select success_only_pre_norm compares successes only with each other. Use "
        "success_only_post_norm or groups_with_success, or advantage const_positive."
    ]


def verdict(one: Judged, advantage: float) -> Verdict:
    return Verdict(
        completion_id=one.completion.completion_id,
        advantage=advantage,
        selected=one.is_selected,
        reason=one.reason,
    )


def training_row(completion: Completion, advantage: float, token_weight: float) -> TrainingRow:
    return TrainingRow(
        completion_id=completion.completion_id,
        layer=completion.layer,
        prompt_token_ids=completion.prompt_token_ids,
        token_ids=completion.token_ids,
        rollout_logprobs=completion.rollout_logprobs,
        advantage=advantage,
        token_weight=token_weight,
    )
