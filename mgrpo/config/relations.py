"""Keys that are valid alone and wrong together: what stops a run, with dotted paths."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from mgrpo.config.data import DataConfig, DataSource, MixtureSource, name_of, sources_in
from mgrpo.config.guidance import CheckGuidance
from mgrpo.config.layers import (
    LaterLayer,
    LayerConfig,
    RejectedParents,
    SelfContinue,
    VerifyLayer,
)
from mgrpo.config.learner import LearnerConfig, ObjectiveConfig
from mgrpo.config.lengths import context_needed
from mgrpo.config.rewards import RewardsConfig
from mgrpo.errors import ConfigFault


def chain_faults(layers: Sequence[LayerConfig]) -> list[ConfigFault]:
    """Layers that do not form a chain, or of which none trains."""
    faults = []
    names = [layer.name for layer in layers]
    for depth, layer in enumerate(layers):
        path, first = f"layers.{depth}", names.index(layer.name)
        if first < depth:
            reason = f"layers must have different names, and layer {first + 1} has this one."
            faults.append(ConfigFault(f"{path}.name", layer.name, reason))
        if (layer.kind == "solve") != (depth == 0):
            reason = "the first layer solves, every later one corrects."
            hint = f"Use kind: {'correct' if depth else 'solve'}, or omit the key."
            faults.append(ConfigFault(f"{path}.kind", layer.kind, reason, hint))
    if not any(layer.loss_weight > 0 for layer in layers):
        reason, hint = "nothing would be trained.", "Give at least one layer a loss_weight above 0."
        faults.append(ConfigFault("layers", "loss_weight 0 in every layer", reason, hint))
    return faults + parent_faults(layers) + verdict_faults(layers)


def verdict_faults(layers: Sequence[LayerConfig]) -> list[ConfigFault]:
    """Layers that read a verdict as if it were an attempt, or look for one where there is none."""
    faults = []
    for depth, (before, layer) in enumerate(pairwise(layers), start=1):
        if not isinstance(layer, LaterLayer):
            continue  # which is a fault of its own
        wrong: list[tuple[str, str, str, str]] = []
        if not isinstance(before, VerifyLayer):
            if isinstance(layer.parents, RejectedParents):
                reason, hint = (
                    "the layer before gives no verdicts.",
                    "Use kind: verify for that one.",
                )
                wrong.append(("parents", "rejected", reason, hint))
        else:
            why = f"the layer before ({before.name}) gives verdicts: "
            if isinstance(layer, VerifyLayer):
                reason = why + "a verdict is on an attempt, not on a verdict."
                wrong.append(("kind", "verify", reason, "Use kind: correct."))
            if layer.parents.type not in OF_VERDICTS:
                reason, hint = why + "it would choose among them.", f"Use {', '.join(OF_VERDICTS)}."
                wrong.append(("parents", layer.parents.type, reason, hint))
            if not isinstance(layer.layout, SelfContinue):
                reason = why + "it would be quoted as if it were the attempt."
                hint = "Use self_continue, which goes on behind attempt and verdict."
                wrong.append(("layout", layer.layout.type, reason, hint))
            if isinstance(layer.guidance, CheckGuidance):
                reason = why + "no check reads these, so there is nothing to say of them."
                wrong.append(("guidance", "check", reason, "Use phrases."))
        faults += [ConfigFault(f"layers.{depth}.{key}", *words) for key, *words in wrong]
    return faults


OF_VERDICTS = ("rejected", "all", "uniform_k")
"""Kinds of parents that verdicts may be chosen by."""


def reward_source_faults(data: DataConfig, rewards: RewardsConfig) -> list[ConfigFault]:
    """Terms for sources that there are not, and sources of which no term says what is right."""
    lists = [one for one in (data.train, data.heldout) if one is not None]
    named = [name_of(one) for part in lists if is_list(part) for one in sources_in(part)]
    names = [*dict.fromkeys(named), *([""] if not all(map(is_list, lists)) else [])]
    faults = []
    for number, term in enumerate(rewards.terms):
        path = f"rewards.terms.{number}.sources"
        for name in term.sources or ():
            if name not in named:
                known = ", ".join(named) or "none: only the sources of a list have names"
                reason = "no data source has this name."
                faults.append(ConfigFault(path, name, reason, f"Names: {known}."))
    for name in names if not faults else ():
        if not any(one.scores(name) and one.correct_at is not None for one in rewards.terms):
            reason = "has no reward term that says what is right."
            where = name or "the problems of a single source, which has no name,"
            hint = "Name it in `sources` of a term with correct_at, or leave `sources` out of one."
            faults.append(ConfigFault("rewards.terms", where, reason, hint))
    return faults


def is_list(source: DataSource) -> bool:
    return isinstance(source, MixtureSource)


def parent_faults(layers: Sequence[LayerConfig]) -> list[ConfigFault]:
    """More parents than the layer before has completions."""
    faults, completions = [], 1  # per problem, in the layer before
    for depth, layer in enumerate(layers):
        most = layer.max_parents if isinstance(layer, LaterLayer) else None
        if most is not None:
            if most > completions:
                reason = f"the layer before has only {completions} completions per problem."
                hint = f"Nearest valid value: {completions}."
                faults.append(ConfigFault(f"layers.{depth}.parents.k", str(most), reason, hint))
            completions = most
        completions *= layer.group_size
    return faults


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


def order_faults(objective: ObjectiveConfig, layers: Sequence[LayerConfig]) -> list[ConfigFault]:
    """An order of updates that the chain cannot have."""
    order = objective.update_order.type
    if order == "alternate_steps" and len(layers) < 2:
        return [ConfigFault("objective.update_order", order, "needs at least 2 layers.")]
    return []


def minibatch_faults(objective: ObjectiveConfig, prompts_per_step: int) -> list[ConfigFault]:
    """More optimizer steps than problems to share among them."""
    if objective.minibatches <= prompts_per_step:
        return []
    return [
        ConfigFault(
            "objective.minibatches",
            str(objective.minibatches),
            f"a step has only {prompts_per_step} problems (prompts_per_step), and each minibatch "
            "has at least one.",
            f"Nearest valid value: {prompts_per_step}; or raise prompts_per_step.",
        )
    ]


def learner_faults(
    learner: LearnerConfig,
    layers: Sequence[LayerConfig],
    *,
    max_prompt_tokens: int,
    num_completions: int,
) -> list[ConfigFault]:
    """A micro-batch that is too small for a sequence, or idle ranks.

    Args:
        num_completions: of one optimizer step, at most.
    """
    faults = []
    longest = context_needed(layers, max_prompt_tokens, guidance_tokens=0)
    if learner.microbatch_tokens < longest:
        faults.append(
            ConfigFault(
                "learner.microbatch_tokens",
                str(learner.microbatch_tokens),
                f"a sequence can have {longest} tokens (data.max_prompt_tokens "
                f"{max_prompt_tokens} + attempt + completion), and one micro-batch "
                "must hold a whole sequence.",
                f"Nearest valid value: {longest}; or lower the layers' max_completion_tokens.",
            )
        )
    return faults + rank_faults(learner.num_ranks, num_completions)


def rank_faults(num_ranks: int, num_completions: int) -> list[ConfigFault]:
    """More ranks than an optimizer step has completions."""
    if num_ranks <= num_completions:
        return []
    return [
        ConfigFault(
            "learner.num_ranks",
            str(num_ranks),
            f"an optimizer step has only {num_completions} completions, so some ranks would be "
            "idle.",
            f"Nearest valid value: {num_completions}.",
        )
    ]
