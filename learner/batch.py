"""From scored completions to training rows: advantages, selection, and the loss's denominators.

Pure and deterministic; without a model, unless a plug-in reads the policy. The whole loss of a
step is

    sum over rows of  token_weight * sum over the row's tokens of  token_loss

so every denominator (how many completions, how many tokens, the layer's loss_weight) is
worked out here once. Ranks, micro-batches and packing then cannot change the gradient: each only
adds up its share of one sum. With `objective.minibatches` there is such a sum for each part of the
step's problems, with the denominators of that part; advantages, groups and selection are those of
the whole step.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from learner.advantages import (
    ZERO_STD_TOLERANCE,
    const_positive_advantages,
    group_advantages,
    improvement_advantages,
)
from learner.columns import Metrics, StepBatch
from learner.denominators import layer_weights
from learner.other_prompts import root_of
from learner.packing import RowCost, cut_trees, share_trees
from learner.plugin import AdvantageEstimator, LearnerPlugin, TokenMeasurement
from learner.policy_reader import PolicyReader
from learner.rows import Minibatch, TrainingRow, Values, text
from learner.selection import Candidate, group_of, select_layer
from mgrpo.config import GroupZ, LaterLayer, LayerConfig, ObjectiveConfig
from mgrpo.config.advantages import ConstPositive, Improvement, RawReward
from mgrpo.config.base import StrictConfig
from mgrpo.config.parts import Part
from mgrpo.errors import LearnerError
from mgrpo.records.token_columns import TokenMask
from mgrpo.types import Completion, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingBatch:
    """The rows of one update, and the selection of every completion."""

    minibatches: list[Minibatch]  # one for each optimizer step, in their order; of this rank
    selections: list[Selection]  # one per completion, in the order given
    metrics: Metrics  # name: (sum, count)
    notes: list[str]  # for people: settings that left no gradient
    all_rows: list[TrainingRow]  # of every completion that this rank holds, in the order given
    shaped_rewards: list[float]  # of every completion: the checks' rewards as plug-ins leave them
    totals: Mapping[int, float]  # by layer, what its rows' losses are divided by, over minibatches

    @property
    def rows(self) -> list[TrainingRow]:
        """Those that this rank trains."""
        return [row for one in self.minibatches for row in one.rows]


def build_batch(
    completions: Sequence[Completion],
    layers: Sequence[LayerConfig],
    objective: ObjectiveConfig,
    *,
    context: Sequence[Completion] = (),
    plugins: Sequence[LearnerPlugin] = (),
    measurements: Mapping[str, Tensor] | None = None,
    step: int = 0,
    policy: PolicyReader | None = None,
    rank: int = 0,
    num_ranks: int = 1,
    add_over_ranks: Callable[[Tensor], Tensor] | None = None,
    is_part: bool = False,
    policy_version: int | None = None,
) -> TrainingBatch:
    """Turn one step's scored completions into weighted training rows.

    Args:
        completions: of any layers, each scored, with those that plug-ins add (`with_added`). Groups
            must be whole.
        layers: the chain; a completion's `layer` is 1 for the first.
        objective: KL settings and the number of minibatches. Selected rows whose loss and
            gradient are exactly 0 are dropped.
        context: parents that do not train now but that corrections may be compared with.
        plugins: called in this order within each hook (see `learner.plugin`).
        measurements: of the whole step, by name: what is known of that which the plug-ins require;
            the rest is measured with the policy.
        step: for plug-ins whose settings follow a schedule.
        policy: what is read with; None: what is read is in `measurements`.
        rank, num_ranks: whose share of the rows this is.
        add_over_ranks: adds a tensor up over ranks, in place; with several ranks it must be given.
        is_part: these are some trees of a step. Weights are then not divided by `totals`, which
            the parts add up.
        policy_version: tokens of older versions have their ratio against the log-probabilities
            recorded while sampling; None: no token has.

    Raises:
        LearnerError: a completion is unscored, inconsistent, given twice, or of an unknown layer.
    """
    if not completions:  # every attempt was right, or every one failed: nothing to correct
        return TrainingBatch(
            minibatches=[],
            selections=[],
            metrics={},
            notes=[],
            all_rows=[],
            shaped_rewards=[],
            totals={},
        )
    check_completions(completions, num_layers=len(layers))
    batch = step_batch(
        completions,
        layers,
        plugins,
        context=context,
        measurements=measurements,
        step=step,
        rank=rank,
        num_ranks=num_ranks,
        add_over_ranks=add_over_ranks,
        num_minibatches=objective.minibatches,
    )
    if policy is not None:
        batch.measurements |= measured(batch, plugins, policy)
    for plugin in plugins:
        batch.measurements |= checked_measurements(plugin, "measure", plugin.measure(batch), batch)
    untrained = filtered(batch, plugins)
    if policy is not None:
        for plugin in plugins:
            found = plugin.read_policy(batch, policy)
            batch.measurements |= checked_measurements(plugin, "read_policy", found, batch)
    decided = decide(batch, layers, plugins, context, untrained, is_part=is_part)
    costs = row_costs(decided, layers, objective, plugins)
    minibatch_of = batch.minibatch_ids.tolist()
    batch = batch.moved(share_minibatches(costs, minibatch_of, num_ranks)[rank])
    all_rows, means = training_rows(batch, decided, layers, objective, plugins, policy_version)
    selections = [selection(*one) for one in zip(decided.candidates, means.tolist(), strict=True)]
    selected = {
        place: row
        for place, row in zip(batch.held, all_rows, strict=True)
        if selections[place].selected
    }
    minibatches = []
    for number in range(max(minibatch_of) + 1):
        chosen = {place: row for place, row in selected.items() if minibatch_of[place] == number}
        rows = {place: row for place, row in chosen.items() if row.has_gradient}
        added = [
            replace(row, is_added=True)
            for one in plugins
            for row in one.added_rows(batch, list(chosen.values()))
        ]
        part = batch.part(list(rows)) if having(plugins, "refresh_columns") else None
        minibatches.append(Minibatch([*rows.values(), *added], part))
    return TrainingBatch(
        minibatches=minibatches,
        selections=selections,
        metrics=decided.metrics | batch.metrics,
        notes=decided.notes,
        all_rows=all_rows,
        shaped_rewards=[one.reward.value for one in decided.candidates],
        totals=decided.totals,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What is known of every completion from row columns, the same on every rank. N completions."""

    candidates: list[Candidate]  # N, with their rewards as plug-ins shape them
    parents: Mapping[str, Completion]  # by completion_id
    advantages: Tensor  # [N]
    weights: Tensor  # [N] factors on each token's loss
    totals: Mapping[int, float]  # by layer, what its weights are divided by, over minibatches
    metrics: Metrics
    notes: list[str]


def decide(
    batch: StepBatch,
    layers: Sequence[LayerConfig],
    plugins: Sequence[LearnerPlugin],
    context: Sequence[Completion],
    untrained: Mapping[int, str],
    *,
    is_part: bool = False,
) -> Decided:
    """Rewards, selection, advantages and denominators of every completion.

    Args:
        untrained: place -> reason of completions that are compared and must not train.
        is_part: weights are not divided by `totals`.
    """
    completions = shaped(batch, plugins)
    parents = {one.completion_id: one for one in (*context, *completions)}
    metrics: Metrics = {}
    notes: list[str] = []
    candidates: dict[int, Candidate] = {}
    totals: dict[int, float] = defaultdict(float)
    advantages, weights = batch.rows([0.0] * len(completions)), batch.rows([0.0] * len(completions))
    for number, layer in enumerate(layers, start=1):
        places = [place for place, one in enumerate(completions) if one.layer == number]
        if not places:
            continue
        members = select_layer([completions[place] for place in places], parents, layer)
        members = [
            one if one.reason else replace(one, reason=untrained.get(place, ""))
            for place, one in zip(places, members, strict=True)
        ]
        layer_values = layer_advantages(members, layer)
        metrics |= layer_metrics(members, number)
        notes += layer_notes(members, layer_values, number, layer)
        advantages[places] = batch.rows(layer_values)
        candidates |= zip(places, members, strict=True)
        for here in batch.by_minibatch(places):
            found = layer_weights([candidates[place] for place in here], layer)
            weights[here] = batch.rows(found.own if is_part else found.divided())
            totals[number] += found.total
    in_order = [candidates[place] for place in range(len(completions))]
    advantages = estimated(batch, completions, plugins, advantages)
    return Decided(
        candidates=in_order,
        parents=parents,
        advantages=advantages,
        weights=weights,
        totals=totals,
        metrics=metrics | magnitudes(in_order, advantages),
        notes=notes,
    )


def with_added(
    completions: Sequence[Completion],
    context: Sequence[Completion],
    plugins: Sequence[LearnerPlugin],
) -> list[Completion]:
    """The completions of a step, with those that plug-ins add behind them."""
    parents = {one.completion_id: one for one in (*context, *completions)}
    return [
        *completions,
        *(
            one
            for plugin in having(plugins, "added_completions")
            for one in plugin.added_completions(completions, parents)
        ),
    ]


def step_batch(
    completions: Sequence[Completion],
    layers: Sequence[LayerConfig],
    plugins: Sequence[LearnerPlugin] = (),
    *,
    context: Sequence[Completion] = (),
    measurements: Mapping[str, Tensor] | None = None,
    step: int = 0,
    rank: int = 0,
    num_ranks: int = 1,
    add_over_ranks: Callable[[Tensor], Tensor] | None = None,
    num_minibatches: int = 1,
) -> StepBatch:
    """The completions as columns. Ranks hold trees of about the same number of tokens.

    Args:
        measurements: of the whole step.
    """
    parents = {one.completion_id: one for one in (*context, *completions)}
    trees = [root_of(one, parents).group_key for one in completions]
    lengths = [len(one.prompt_token_ids) + len(one.token_ids) for one in completions]
    costs = [
        RowCost(tree=tree, num_trained=length, num_tokens=length)
        for tree, length in zip(trees, lengths, strict=True)
    ]
    batch = StepBatch(
        completions=completions,
        parents=parents,
        groups=[(one.layer, group_of(one, layers[one.layer - 1])) for one in completions],
        step=step,
        token_measurements=frozenset(get_args(TokenMeasurement)).union(
            *(plugin.token_measurements for plugin in plugins)
        ),
        minibatch_of=cut_trees(trees, num_minibatches),
        held_places=share_trees(costs, num_ranks)[rank],
        add_over_ranks=add_over_ranks if num_ranks > 1 else None,
    )
    batch.measurements |= {
        name: batch.own_tokens(value) if name in batch.token_measurements else value
        for name, value in (measurements or {}).items()
    }
    return batch


def measured(
    batch: StepBatch, plugins: Sequence[LearnerPlugin], policy: PolicyReader
) -> dict[str, Tensor]:
    """The measurements that plug-ins require and that are not known yet."""
    wanted = (
        set().union(*(plugin.wanted_measurements() for plugin in plugins))
        - batch.measurements.keys()
    )
    if not wanted:
        return {}
    held = [batch.completions[place] for place in batch.held]
    found = policy.measure(
        [text(one.prompt_token_ids, one.token_ids) for one in held], sorted(wanted)
    )
    return {
        name: value if name in batch.token_measurements else batch.gather_rows(value)
        for name, value in found.items()
    }


def checked_measurements(
    plugin: LearnerPlugin, hook: str, measurements: Mapping[str, Any], batch: StepBatch
) -> Mapping[str, Any]:
    """What a hook measured.

    Raises:
        LearnerError: a measurement is not one of completions, nor one of tokens and named as such.
    """
    for name, value in measurements.items():
        if name in batch.token_measurements:
            check_tokens(plugin, f"{hook}, measurement {name},", value, batch)
        elif len(value) != len(batch.completions):
            raise LearnerError(
                f"{type(plugin).__name__}.{hook} returned {len(value)} values of {name} for "
                f"{len(batch.completions)} completions. Return one per completion, the same on "
                "every rank; or one per token that the rank holds, and name it in "
                "token_measurements."
            )
    return measurements


def check_tokens(plugin: LearnerPlugin, hook: str, column: Tensor, batch: StepBatch) -> None:
    """
    Raises:
        LearnerError: a hook's column has not one value per token that the rank holds.
    """
    if len(column) != batch.num_tokens:
        raise LearnerError(
            f"{type(plugin).__name__}.{hook} returned {len(column)} values for the "
            f"{batch.num_tokens} tokens that this rank holds; the whole step has "
            f"{int(batch.lengths.sum())} tokens and {len(batch.completions)} completions. Return "
            "one value per token that the rank holds: StepBatch.own_tokens takes them from a "
            "column of all tokens, StepBatch.spread from one of completions."
        )


TOKEN_HOOKS = ("transform_advantages", "weigh_tokens", "weigh_entropy", "token_columns")


def row_costs(
    decided: Decided,
    layers: Sequence[LayerConfig],
    objective: ObjectiveConfig,
    plugins: Sequence[LearnerPlugin],
) -> list[RowCost]:
    """[N] what each completion costs the rank that has it. Rows that may turn out to have no loss,
    as where plug-ins change single tokens, count as if they had."""
    changes_tokens = any(having(plugins, hook) for hook in TOKEN_HOOKS)
    costs = []
    for one, advantage in zip(decided.candidates, decided.advantages.tolist(), strict=True):
        completion = one.completion
        has_kl = kl_weight_of(layers[completion.layer - 1], objective) > 0
        trains = one.is_selected and (advantage != 0 or has_kl or changes_tokens)
        length = len(completion.token_ids)
        costs.append(
            RowCost(
                tree=root_of(completion, decided.parents).group_key,
                num_trained=(len(completion.prompt_token_ids) + length) * trains,
                num_tokens=length,
            )
        )
    return costs


def share_minibatches(
    costs: Sequence[RowCost], minibatch_of: Sequence[int], num_ranks: int
) -> list[list[int]]:
    """`share_trees` of every minibatch by itself, so that each optimizer step is balanced."""
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    for number in sorted(set(minibatch_of)):
        places = [place for place, own in enumerate(minibatch_of) if own == number]
        found = share_trees([costs[place] for place in places], num_ranks)
        for share, own in zip(shares, found, strict=True):
            share += [places[at] for at in own]
    return [sorted(share) for share in shares]


def filtered(batch: StepBatch, plugins: Sequence[LearnerPlugin]) -> dict[int, str]:
    """Let plug-ins leave completions out. Those out of their groups get the status `removed`, in
    the batch itself.

    Returns:
        Place -> reason of those that are compared but do not train.
    """
    untrained: dict[int, str] = {}
    for plugin in plugins:
        rule = plugin.filter_rows(batch)
        if rule is None:
            continue
        here = batch.in_layers(plugin.layers) & batch.is_usable
        for place in (here & ~rule.is_kept).nonzero()[:, 0].tolist():
            batch.remove(place, rule.reason)
        for place in (here & ~rule.is_trained).nonzero()[:, 0].tolist():
            untrained[place] = rule.reason
    return untrained


def estimated(
    batch: StepBatch,
    completions: Sequence[Completion],
    plugins: Sequence[LearnerPlugin],
    advantages: Tensor,
) -> Tensor:
    """[N] advantages, with those of methods' estimators on their layers."""
    rewards = batch.rows([0.0 if one.reward is None else one.reward.value for one in completions])
    for plugin in plugins:
        if isinstance(plugin, AdvantageEstimator):
            found = plugin.estimate_advantages(batch, rewards)
            here = batch.in_layers(plugin.layers) & batch.is_usable
            advantages = torch.where(here, found, advantages)
    return advantages


def shaped(batch: StepBatch, plugins: Sequence[LearnerPlugin]) -> list[Completion]:
    """The completions with the reward values that plug-ins make of theirs.

    Whether an answer is right stays as the checks had it, and failed checks stay failed.
    """
    rewards = batch.rewards
    for plugin in plugins:
        changed = plugin.shape_rewards(batch, rewards)
        rewards = torch.where(batch.in_layers(plugin.layers), changed, rewards)
    if torch.equal(rewards, batch.rewards):
        return list(batch.completions)
    result = []
    for one, value in zip(batch.completions, rewards.tolist(), strict=True):
        if one.reward is None or value == one.reward.value:
            result.append(one)
            continue
        if not math.isfinite(value):
            raise LearnerError(
                f"The shaped reward of completion {one.completion_id} is {value}: a plug-in's "
                "shape_rewards must return finite numbers."
            )
        result.append(replace(one, reward=replace(one.reward, value=value)))
    return result


def training_rows(
    batch: StepBatch,
    decided: Decided,
    layers: Sequence[LayerConfig],
    objective: ObjectiveConfig,
    plugins: Sequence[LearnerPlugin],
    policy_version: int | None,
) -> tuple[list[TrainingRow], Tensor]:
    """Completions as rows, from [N] advantages and [N] weights to those of their tokens.

    Returns:
        The row of every completion that this rank holds, and [N] mean advantages.
    """
    advantages = batch.spread(decided.advantages)
    weights = batch.spread(decided.weights) * batch.is_trained
    for plugin in having(plugins, "transform_advantages"):
        here = batch.spread(batch.in_layers(plugin.layers))
        found = plugin.transform_advantages(batch, advantages)
        check_tokens(plugin, "transform_advantages", found, batch)
        advantages = torch.where(here, found, advantages)
    for plugin in having(plugins, "weigh_tokens"):
        here = batch.spread(batch.in_layers(plugin.layers))
        found = plugin.weigh_tokens(batch, advantages)
        check_tokens(plugin, "weigh_tokens", found, batch)
        weights = torch.where(here, weights * found, weights)
    entropy_weights = None
    for plugin in having(plugins, "weigh_entropy"):
        here = batch.spread(batch.in_layers(plugin.layers)) & batch.is_trained
        found = plugin.weigh_entropy(batch, advantages, weights)
        check_tokens(plugin, "weigh_entropy", found, batch)
        added = torch.where(here, found, 0.0)
        entropy_weights = added if entropy_weights is None else entropy_weights + added
    named: list[dict[str, Values]] = [{} for _ in batch.held]
    for plugin in having(plugins, "token_columns"):
        for name, column in plugin.token_columns(batch, advantages, weights).items():
            check_tokens(plugin, f"token_columns, column {name},", column, batch)
            here = batch.spread(batch.in_layers(plugin.layers))
            parts = batch.split(torch.where(here, column, 0.0))
            for own, part in zip(named, parts, strict=True):
                own[name] = part.numpy()
    means = torch.where(batch.lengths > 0, decided.advantages, 0.0)
    if having(plugins, "transform_advantages"):
        means = batch.row_means(advantages)
    own_entropy_weights = (
        [None] * len(batch.held)
        if entropy_weights is None
        else [part.numpy() if part.any() else None for part in batch.split(entropy_weights)]
    )
    rows = [
        TrainingRow(
            completion_id=one.completion_id,
            layer=one.layer,
            engine=one.engine,
            prompt_token_ids=one.prompt_token_ids,
            token_ids=one.token_ids,
            rollout_logprobs=one.rollout_logprobs,
            advantages=own_advantages.numpy(),
            token_weights=own_weights.numpy(),
            entropy_weights=of_entropy,
            columns=own_columns,
            is_sampled=one.sampled_mask,
            is_stale=stale_tokens(one, policy_version),
            kl_weight=kl_weight_of(layers[one.layer - 1], objective),
        )
        for one, own_columns, own_advantages, own_weights, of_entropy in zip(
            [batch.completions[place] for place in batch.held],
            named,
            batch.split(advantages),
            batch.split(weights),
            own_entropy_weights,
            strict=True,
        )
    ]
    return rows, means


def refreshed(
    minibatch: Minibatch,
    plugins: Sequence[LearnerPlugin],
    policy_logprobs: Tensor,
    old_logprobs: Tensor,
) -> list[TrainingRow]:
    """The rows with the columns that plug-ins compute again before an optimizer step.

    Args:
        minibatch: with its batch.
        policy_logprobs: [m] of all rows' tokens end to end, float64, under the weights now.
        old_logprobs: [m] the same before the first optimizer step on the rollout.
    """
    batch = minibatch.batch
    assert batch is not None, "a plug-in refreshes columns"
    rows = minibatch.rows[: len(batch.held)]
    advantages, token_weights = (
        torch.from_numpy(np.concatenate([*columns, np.zeros(0)]))
        for columns in ([row.advantages for row in rows], [row.token_weights for row in rows])
    )
    now, before = policy_logprobs[: batch.num_tokens], old_logprobs[: batch.num_tokens]
    columns = [dict(row.columns) for row in rows]
    for plugin in having(plugins, "refresh_columns"):
        found = plugin.refresh_columns(batch, advantages, token_weights, now, before)
        for name, column in found.items():
            check_tokens(plugin, f"refresh_columns, column {name},", column, batch)
            for own, part in zip(columns, batch.split(column), strict=True):
                own[name] = part.numpy()
    fresh = [replace(row, columns=own) for row, own in zip(rows, columns, strict=True)]
    return [*fresh, *minibatch.rows[len(rows) :]]


def stale_tokens(one: Completion, policy_version: int | None) -> TokenMask | None:
    """[tokens] sampled by an older policy than this version; None: none were."""
    if policy_version is None or one.oldest_version >= policy_version:
        return None
    return one.versions < policy_version


def having(plugins: Sequence[LearnerPlugin], hook: str) -> list[LearnerPlugin]:
    return [plugin for plugin in plugins if plugin.overrides(hook, LearnerPlugin)]


def kl_weight_of(layer: LayerConfig, objective: ObjectiveConfig) -> float:
    return objective.kl.weight if layer.kl_weight is None else layer.kl_weight


def check_completions(completions: Sequence[Completion], *, num_layers: int) -> None:
    """Refuse inconsistent completions, which would train silently on wrong data."""
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
        if one.turn_spans and not has_whole_turns(one):
            raise LearnerError(
                f"{where} has {len(one.token_ids)} tokens and turns {one.turn_spans}, which are "
                "not within them, or what lies between may carry loss. A plug-in that changes its "
                "tokens or masks must keep its turns right."
            )
        if len(one.prompt_token_ids) == 0:
            raise LearnerError(f"{where} has an empty prompt, so its first token has no context.")
        if one.reward is not None and not math.isfinite(one.reward.value):
            raise LearnerError(
                f"{where} has reward {one.reward.value}. Rewards must be finite: correct the "
                "reward function, or let it raise, which leaves the completion out."
            )


def has_whole_turns(one: Completion) -> bool:
    """Do its turns lie within its tokens, and carries what it read between them no loss?"""
    is_read = np.ones(len(one.token_ids), dtype=np.bool_)
    for start, stop in one.turn_spans:
        if not 0 <= start <= stop <= len(is_read):
            return False
        is_read[start:stop] = False
    return not (is_read & (one.is_sampled | one.is_trained)).any()


def layer_advantages(candidates: Sequence[Candidate], layer: LayerConfig) -> list[float]:
    """The advantage of each completion of one layer; 0 where none can be computed."""
    advantages = [0.0] * len(candidates)
    for indices in comparable_groups(candidates, layer):
        members = [candidates[index] for index in indices]
        values = member_advantages(members, layer.advantage)
        for index, value in zip(indices, values.tolist(), strict=True):
            advantages[index] = value
    return advantages


def comparable_groups(candidates: Sequence[Candidate], layer: LayerConfig) -> list[list[int]]:
    """Indices of the completions whose rewards are compared, one list per group.

    Completions whose check failed are in none. With success_only_pre_norm only the successes
    are compared, which takes the baseline away; every other choice keeps the whole group.
    """
    is_pre_norm = isinstance(layer, LaterLayer) and layer.select == "success_only_pre_norm"
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, one in enumerate(candidates):
        is_correction = one.completion.parent_id is not None
        if one.reward.is_usable and not (is_pre_norm and is_correction and not one.is_success):
            groups[one.group].append(index)
    return list(groups.values())


def member_advantages(members: Sequence[Candidate], advantage: StrictConfig | Part) -> Tensor:
    """[group] float64 advantages of one group's usable members; 0 where a method's own estimator
    has them from the whole step (`estimated`), and where there are none."""
    if isinstance(advantage, ConstPositive):
        return const_positive_advantages(torch.tensor([one.is_success for one in members]))
    rewards = reward_values(members)
    if isinstance(advantage, Improvement):
        return improvement_advantages(rewards, parent_reward_values(members))
    if isinstance(advantage, RawReward):
        return rewards
    if not isinstance(advantage, GroupZ) or len(members) < 2:
        return torch.zeros_like(rewards)
    return group_advantages(
        rewards,
        scale_by_std=advantage.scale_by_std,
        ddof=advantage.ddof,
        epsilon=advantage.epsilon,
    )


def reward_values(members: Iterable[Candidate]) -> Tensor:
    return torch.tensor([one.reward.value for one in members], dtype=torch.float64)


def parent_reward_values(members: Sequence[Candidate]) -> Tensor:
    """[group] rewards of the parents. Where a parent's check failed, the member's own reward
    stands in: the improvement is then 0, and selection has left that member out."""
    values = []
    for one in members:
        known = one.parent.reward if one.parent is not None else None
        values.append(known.value if known is not None and known.is_usable else one.reward.value)
    return torch.tensor(values, dtype=torch.float64)


def magnitudes(candidates: Sequence[Candidate], advantages: Tensor) -> Metrics:
    """How large the advantages of a layer are that train, as (sum, count)."""
    found: dict[int, list[float]] = defaultdict(list)
    for one, value in zip(candidates, advantages.tolist(), strict=True):
        counts = one.is_selected and one.completion.counts_as > 0
        found[one.completion.layer] += [abs(value)] if counts else []
    return {
        f"layer{number}/advantage_abs_mean": (sum(values), float(len(values)))
        for number, values in found.items()
    }


def layer_metrics(candidates: Sequence[Candidate], number: int) -> Metrics:
    """How many groups can teach, and how many completions train, as (sum, count)."""
    candidates = [one for one in candidates if one.completion.counts_as > 0]
    groups: dict[Hashable, list[Candidate]] = defaultdict(list)
    for one in candidates:
        if one.reward.is_usable:
            groups[one.group].append(one)
    spreads = [reward_values(group).std(correction=0) for group in groups.values()]
    num_equal = sum(float(spread) <= ZERO_STD_TOLERANCE for spread in spreads)
    num_selected = sum(one.is_selected for one in candidates)
    return {
        f"layer{number}/zero_variance_fraction": (float(num_equal), float(len(groups))),
        f"layer{number}/selected_fraction": (float(num_selected), float(len(candidates))),
    }


def layer_notes(
    candidates: Sequence[Candidate], advantages: Sequence[float], number: int, layer: LayerConfig
) -> list[str]:
    """Warn where filtering before normalising left every retained advantage at 0."""
    kept = [value for one, value in zip(candidates, advantages, strict=True) if one.is_selected]
    is_degenerate = isinstance(layer, LaterLayer) and layer.select == "success_only_pre_norm"
    if not is_degenerate or not kept or any(kept):
        return []
    return [
        f"Layer {number} ({layer.name}) kept {len(kept)} corrections, all with advantage 0: "
        "select success_only_pre_norm compares successes only with each other. Use "
        "success_only_post_norm or groups_with_success, or advantage const_positive."
    ]


def selection(one: Candidate, advantage: float) -> Selection:
    return Selection(
        completion_id=one.completion.completion_id,
        advantage=advantage,
        selected=one.is_selected,
        reason=one.reason,
    )
