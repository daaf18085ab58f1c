"""Keys that are valid alone and wrong together: what stops a run, with dotted paths."""

from __future__ import annotations

from collections.abc import Sequence

from mgrpo.config.engines import SamplingConfig
from mgrpo.config.layers import BestParents, CorrectLayer, LayerConfig, corrections_of
from mgrpo.config.learner import LearnerConfig, ObjectiveConfig
from mgrpo.config.lengths import context_needed
from mgrpo.config.plugins import PluginConfig
from mgrpo.errors import ConfigProblem


def chain_problems(layers: Sequence[LayerConfig]) -> list[ConfigProblem]:
    """Layers that do not form a chain, or of which none trains."""
    problems = []
    names = [layer.name for layer in layers]
    for depth, layer in enumerate(layers):
        path, first = f"layers.{depth}", names.index(layer.name)
        if first < depth:
            reason = f"layers must have different names, and layer {first + 1} has this one."
            problems.append(ConfigProblem(f"{path}.name", layer.name, reason))
        if (layer.kind == "solve") != (depth == 0):
            reason = "the first layer solves, every later one corrects."
            hint = f"Use kind: {'correct' if depth else 'solve'}, or omit the key."
            problems.append(ConfigProblem(f"{path}.kind", layer.kind, reason, hint))
    if not any(layer.loss_weight > 0 for layer in layers):
        reason, hint = "nothing would be trained.", "Give at least one layer a loss_weight above 0."
        problems.append(ConfigProblem("layers", "loss_weight 0 in every layer", reason, hint))
    return problems + parent_problems(layers)


def parent_problems(layers: Sequence[LayerConfig]) -> list[ConfigProblem]:
    """More parents than the layer before has completions."""
    problems, completions = [], 1  # per problem, in the layer before
    for depth, layer in enumerate(layers):
        most = layer.max_parents if isinstance(layer, CorrectLayer) else None
        if most is not None:
            if most > completions:
                reason = f"the layer before has only {completions} completions per problem."
                hint = f"Nearest valid value: {completions}."
                problems.append(ConfigProblem(f"layers.{depth}.parents.k", str(most), reason, hint))
            completions = most
        completions *= layer.group_size
    return problems


def max_completions_per_step(
    layers: Sequence[LayerConfig], *, num_problems: int, is_pooled: bool
) -> int:
    """Completions of one step when no parent is left out.

    Args:
        is_pooled: a step samples one of the layers, as with update_order: pooled_errors.
    """
    by_layer, parents = [], num_problems
    for layer in layers:
        if isinstance(layer, CorrectLayer):
            most = layer.max_parents
            if is_pooled or most is not None:
                parents = num_problems * (most or 1)
        parents *= layer.group_size
        by_layer.append(parents)
    return max(by_layer) if is_pooled else sum(by_layer)


def order_problems(
    objective: ObjectiveConfig,
    sampling: SamplingConfig,
    layers: Sequence[LayerConfig],
    plugins: Sequence[PluginConfig],
) -> list[ConfigProblem]:
    """An order of updates that the chain cannot have."""
    order, num_layers = objective.update_order, len(layers)
    if order == "pooled_errors" and num_layers != 2:
        return [
            ConfigProblem(
                "objective.update_order",
                order,
                f"needs a chain of 2 layers, one that solves and one that corrects; this has "
                f"{num_layers}.",
            )
        ]
    if order == "alternate_steps" and num_layers < 2:
        return [ConfigProblem("objective.update_order", order, "needs at least 2 layers.")]
    problems = preference_problems(objective, plugins)
    parents = [one.parents for one in corrections_of(layers)] if order == "pooled_errors" else []
    if parents and isinstance(parents[0], BestParents) and parents[0].all_fail != "use_any":
        problems.append(
            ConfigProblem(
                "layers.1.parents.all_fail",
                parents[0].all_fail,
                "every pooled attempt failed, so no corrections would be sampled.",
                "Use all_fail: use_any.",
            )
        )
    if objective.rollout_policy == "refreshed" and order != "sequential":
        problems.append(
            ConfigProblem(
                "objective.rollout_policy",
                "refreshed",
                f"with update_order: {order} the policy does not change between the layers.",
                "Use update_order: sequential, or rollout_policy: auto.",
            )
        )
    if sampling.dynamic is not None and order not in ("joint", "preference_phases"):
        problems.append(
            ConfigProblem(
                "sampling.dynamic", "(given)", f"does not work with update_order: {order}."
            )
        )
    if objective.correction_buffer is not None and num_layers < 2:
        problems.append(
            ConfigProblem(
                "objective.correction_buffer", "(given)", "a chain of one has no corrections."
            )
        )
    return problems


def preference_problems(
    objective: ObjectiveConfig, plugins: Sequence[PluginConfig]
) -> list[ConfigProblem]:
    """Steps on pairs without a source of pairs, or without a plug-in that trains on them."""
    if objective.train_on == "rollouts":
        return []
    if objective.update_order != "preference_phases":
        return [
            ConfigProblem(
                "objective.train_on",
                objective.train_on,
                f"with update_order: {objective.update_order} no pairs are made.",
                "Use update_order: preference_phases.",
            )
        ]
    if any(entry.use == "dpo" or ":" in entry.use for entry in plugins):
        return []
    return [
        ConfigProblem(
            "objective.train_on",
            objective.train_on,
            "no plug-in of the recipe trains on pairs.",
            "Add dpo to plugins.",
        )
    ]


def learner_problems(
    learner: LearnerConfig,
    layers: Sequence[LayerConfig],
    *,
    max_prompt_tokens: int,
    num_completions: int,
) -> list[ConfigProblem]:
    """A micro-batch that is too small for a sequence, or idle ranks.

    Args:
        num_completions: of one step, at most.
    """
    problems = []
    longest = context_needed(layers, max_prompt_tokens, guidance_tokens=0)
    if learner.microbatch_tokens < longest:
        problems.append(
            ConfigProblem(
                "learner.microbatch_tokens",
                str(learner.microbatch_tokens),
                f"a sequence can have {longest} tokens (data.max_prompt_tokens "
                f"{max_prompt_tokens} + attempt + completion), and one micro-batch "
                "must hold a whole sequence.",
                f"Nearest valid value: {longest}; or lower the layers' max_completion_tokens.",
            )
        )
    if learner.num_ranks > num_completions:
        problems.append(
            ConfigProblem(
                "learner.num_ranks",
                str(learner.num_ranks),
                f"a step has only {num_completions} completions, so some ranks would be idle.",
                f"Nearest valid value: {num_completions}.",
            )
        )
    return problems
