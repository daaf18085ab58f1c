"""Keys that are valid alone and wrong together: what stops a run, with dotted paths."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from mgrpo.config.data import DataConfig, DataSource, MixtureSource, name_of, sources_in
from mgrpo.config.layers import (
    LaterLayer,
    LayerConfig,
    RejectedParents,
    VerifyLayer,
)
from mgrpo.config.learner import LearnerConfig, ObjectiveConfig
from mgrpo.config.lengths import context_needed
from mgrpo.config.rewards import RewardsConfig
from mgrpo.errors import ConfigFault, Faults, at_most, must_be


def chain_faults(layers: Sequence[LayerConfig]) -> Faults:
    """Layers that do not form a chain, or of which none trains."""
    names = [layer.name for layer in layers]
    for depth, layer in enumerate(layers):
        path, first = f"layers.{depth}", names.index(layer.name)
        if first < depth:
            reason = f"layers must have different names, and layer {first + 1} has this one."
            yield ConfigFault(f"{path}.name", layer.name, reason)
        if (layer.kind == "solve") != (depth == 0):
            reason = "the first layer solves, every later one corrects."
            hint = f"Use kind: {'correct' if depth else 'solve'}, or omit the key."
            yield ConfigFault(f"{path}.kind", layer.kind, reason, hint)
    if not any(layer.loss_weight > 0 for layer in layers):
        reason, hint = "nothing would be trained.", "Give at least one layer a loss_weight above 0."
        yield ConfigFault("layers", "loss_weight 0 in every layer", reason, hint)
    yield from parent_faults(layers)
    yield from verdict_faults(layers)


def verdict_faults(layers: Sequence[LayerConfig]) -> Faults:
    """Layers that read a verdict as if it were an attempt, or look for one where there is none."""
    for depth, (before, layer) in enumerate(pairwise(layers), start=1):
        if not isinstance(layer, LaterLayer):
            continue  # which is a fault of its own
        path, parents = f"layers.{depth}", layer.parents.type
        if not isinstance(before, VerifyLayer):
            if isinstance(layer.parents, RejectedParents):
                reason, hint = (
                    "the layer before gives no verdicts.",
                    "Use kind: verify for that one.",
                )
                yield ConfigFault(f"{path}.parents", parents, reason, hint)
            continue
        why = f"the layer before ({before.name}) gives verdicts: "
        if isinstance(layer, VerifyLayer):
            reason = why + "a verdict is on an attempt, not on a verdict."
            yield ConfigFault(f"{path}.kind", "verify", reason, "Use kind: correct.")
        if parents not in OF_VERDICTS:
            reason, hint = why + "it would choose among them.", f"Use {', '.join(OF_VERDICTS)}."
            yield ConfigFault(f"{path}.parents", parents, reason, hint)
        reason = why + "it would be quoted as if it were the attempt."
        hint = "Use self_continue, which goes on behind attempt and verdict."
        yield from must_be(f"{path}.layout", layer.layout.type, "self_continue", reason, hint)
        reason = why + "no check reads these, so there is nothing to say of them."
        yield from must_be(f"{path}.guidance", layer.guidance.type, "phrases", reason)


OF_VERDICTS = ("rejected", "all", "uniform_k")
"""Kinds of parents that verdicts may be chosen by."""


def reward_source_faults(data: DataConfig, rewards: RewardsConfig) -> Faults:
    """Terms for sources that there are not, and sources of which no term says what is right."""
    lists = [one for one in (data.train, data.heldout) if one is not None]
    named = [name_of(one) for part in lists if is_list(part) for one in sources_in(part)]
    names = [*dict.fromkeys(named), *([""] if not all(map(is_list, lists)) else [])]
    wanted = [(at, name) for at, term in enumerate(rewards.terms) for name in term.sources or ()]
    unknown = [(at, name) for at, name in wanted if name not in named]
    for at, name in unknown:
        hint = f"Names: {', '.join(named) or 'none: only the sources of a list have names'}."
        reason = "no data source has this name."
        yield ConfigFault(f"rewards.terms.{at}.sources", name, reason, hint)
    for name in names if not unknown else ():
        if not any(one.scores(name) and one.correct_at is not None for one in rewards.terms):
            reason = "has no reward term that says what is right."
            where = name or "the problems of a single source, which has no name,"
            hint = "Name it in `sources` of a term with correct_at, or leave `sources` out of one."
            yield ConfigFault("rewards.terms", where, reason, hint)


def is_list(source: DataSource) -> bool:
    return isinstance(source, MixtureSource)


def parent_faults(layers: Sequence[LayerConfig]) -> Faults:
    """More parents than the layer before has completions."""
    completions = 1  # per problem, in the layer before
    for depth, layer in enumerate(layers):
        most = layer.max_parents if isinstance(layer, LaterLayer) else None
        why = f"the layer before has only {completions} completions per problem."
        yield from at_most(f"layers.{depth}.parents.k", most or 0, completions, why)
        completions = (completions if most is None else most) * layer.group_size


def max_completions_per_step(
    layers: Sequence[LayerConfig], *, num_problems: int, one_layer: bool = False
) -> int:
    """Completions of one step when no parent is left out.

    Args:
        one_layer: a step samples one of the layers, not the whole chain.
    """
    by_layer, parents = [], num_problems
    for layer in layers:
        if isinstance(layer, LaterLayer):
            most = layer.max_parents
            if one_layer or most is not None:
                parents = num_problems * (most or 1)
        parents *= layer.group_size
        by_layer.append(parents)
    return max(by_layer) if one_layer else sum(by_layer)


def order_faults(objective: ObjectiveConfig, layers: Sequence[LayerConfig]) -> Faults:
    """An order of updates that the chain cannot have."""
    order = objective.update_order.type
    if order == "alternate_steps" and len(layers) < 2:
        yield ConfigFault("objective.update_order", order, "needs at least 2 layers.")


def minibatch_faults(objective: ObjectiveConfig, most: int) -> Faults:
    """More optimizer steps than the `most` problems of a step to share among them."""
    why = f"a step has only {most} problems (prompts_per_step), and each minibatch needs one."
    yield from at_most("objective.minibatches", objective.minibatches, most, why)


def learner_faults(
    learner: LearnerConfig,
    layers: Sequence[LayerConfig],
    *,
    max_prompt_tokens: int,
    num_completions: int,
) -> Faults:
    """A micro-batch that is too small for a sequence, or idle ranks.

    Args:
        num_completions: of one optimizer step, at most.
    """
    longest = context_needed(layers, max_prompt_tokens, guidance_tokens=0)
    if learner.microbatch_tokens < longest:
        reason = (
            f"a sequence can have {longest} tokens (data.max_prompt_tokens {max_prompt_tokens} + "
            "attempt + completion), and one micro-batch must hold a whole sequence."
        )
        hint = f"Nearest valid value: {longest}; or lower the layers' max_completion_tokens."
        yield ConfigFault("learner.microbatch_tokens", str(learner.microbatch_tokens), reason, hint)
    yield from rank_faults(learner.num_ranks, num_completions)


def rank_faults(num_ranks: int, most: int) -> Faults:
    """More ranks than the `most` completions that an optimizer step has."""
    why = f"an optimizer step has only {most} completions, so some ranks would be idle."
    yield from at_most("learner.num_ranks", num_ranks, most, why)
