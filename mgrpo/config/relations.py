"""Keys that are valid alone and wrong, or without effect, together.

`problems_of` finds what stops a run, `warnings_of` what is legal and probably not meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mgrpo.config.colocation import colocation_problems
from mgrpo.config.evaluation import guidance_problems
from mgrpo.config.layers import LayerConfig
from mgrpo.config.lengths import context_needed
from mgrpo.config.objective_warnings import objective_warnings
from mgrpo.errors import ConfigProblem

if TYPE_CHECKING:
    from mgrpo.config.run import RunConfig

PARENTS_WITH_K = ("wrong_first", "uniform_k", "best")
LATER_LAYER_KEYS = (
    "parents",
    "parents_k",
    "tie_break",
    "all_fail",
    "group_by",
    "select",
    "success",
    "denominator",
    "layout",
    "quote",
    "max_quote_tokens",
    "skip_truncated_parents",
    "guidance",
)


def problems_of(config: RunConfig) -> list[ConfigProblem]:
    """Everything about the whole recipe that stops a run, with dotted paths."""
    problems = [*chain_problems(config), *first_layer_problems(config.layers[0])]
    completions = 1  # per problem, in the layer before
    for depth, layer in enumerate(config.layers):
        if depth > 0:
            problems += later_layer_problems(layer, f"layers.{depth}", completions)
            if layer.parents in PARENTS_WITH_K:
                completions = layer.num_parents
        completions *= layer.group_size
    problems += guidance_problems(config.evaluation, config.layers)
    return problems + learner_problems(config) + colocation_problems(config)


def chain_problems(config: RunConfig) -> list[ConfigProblem]:
    problems = []
    names = [layer.name for layer in config.layers]
    for depth, name in enumerate(names):
        if name in names[:depth]:
            problems.append(
                ConfigProblem(
                    f"layers.{depth}.name",
                    name,
                    f"layers must have different names, and layer {names.index(name) + 1} "
                    "has this one.",
                )
            )
    problems += order_problems(config)
    if not any(layer.loss_weight > 0 for layer in config.layers):
        problems.append(
            ConfigProblem(
                "layers",
                "loss_weight 0 in every layer",
                "nothing would be trained.",
                "Give at least one layer a loss_weight above 0.",
            )
        )
    return problems


def order_problems(config: RunConfig) -> list[ConfigProblem]:
    """An order of updates that the chain cannot have."""
    objective, num_layers = config.objective, len(config.layers)
    order = objective.update_order
    if order == "pooled_errors" and num_layers != 2:
        return [
            ConfigProblem(
                "objective.update_order",
                order,
                f"needs a chain of 2 layers, one that errs and one that corrects; this has "
                f"{num_layers}.",
            )
        ]
    if order == "alternate_steps" and num_layers < 2:
        return [ConfigProblem("objective.update_order", order, "needs at least 2 layers.")]
    problems = preference_problems(config)
    if order == "pooled_errors" and config.layers[1].all_fail != "use_any":
        problems.append(
            ConfigProblem(
                "layers.1.all_fail",
                config.layers[1].all_fail,
                "every pooled attempt failed, so there would be nothing to correct.",
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
    if config.sampling.dynamic is not None and order not in ("joint", "preference_phases"):
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


def preference_problems(config: RunConfig) -> list[ConfigProblem]:
    """Steps on pairs that nothing makes, or that no plug-in can train on."""
    objective = config.objective
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
    if any(entry.use == "dpo" or ":" in entry.use for entry in config.plugins):
        return []
    return [
        ConfigProblem(
            "objective.train_on",
            objective.train_on,
            "no plug-in of the recipe trains on pairs.",
            "Add dpo to plugins.",
        )
    ]


def first_layer_problems(layer: LayerConfig) -> list[ConfigProblem]:
    """Keys of corrections that are set where there is nothing to correct."""
    without_parents = [
        ConfigProblem(
            "layers.0.advantage",
            layer.advantage,
            "compares with a parent, and the first layer has none.",
            "Use group_z.",
        )
    ] * (layer.advantage == "improvement")
    return without_parents + [
        ConfigProblem(
            f"layers.0.{key}",
            str(getattr(layer, key)),
            "has no effect in the first layer, which has no attempts to correct.",
            "Remove the key.",
        )
        for key in LATER_LAYER_KEYS
        if getattr(layer, key) != LayerConfig.model_fields[key].default
    ]


def later_layer_problems(
    layer: LayerConfig, path: str, completions_before: int
) -> list[ConfigProblem]:
    problems = []
    k = layer.parents_k
    if k is not None and layer.parents not in PARENTS_WITH_K:
        problems.append(
            ConfigProblem(
                f"{path}.parents_k",
                str(k),
                f"has no effect with parents: {layer.parents}.",
                f"Remove it, or set parents to one of {', '.join(PARENTS_WITH_K)}.",
            )
        )
    elif k is not None and k > completions_before:
        problems.append(
            ConfigProblem(
                f"{path}.parents_k",
                str(k),
                f"the layer before has only {completions_before} completions per problem.",
                f"Nearest valid value: {completions_before}.",
            )
        )
    for key in ("tie_break", "all_fail"):
        value = getattr(layer, key)
        if layer.parents != "best" and value != LayerConfig.model_fields[key].default:
            problems.append(
                ConfigProblem(
                    f"{path}.{key}",
                    value,
                    f"has no effect with parents: {layer.parents}.",
                    "Remove it, or set parents: best.",
                )
            )
    if layer.layout == "self_continue":
        problems += self_continue_problems(layer, path)
    return problems


def self_continue_problems(layer: LayerConfig, path: str) -> list[ConfigProblem]:
    """self_continue goes on in the attempt's own turn, so nothing of it can be left out."""
    why = "conflicts with layout: self_continue, whose prompt is the whole attempt."
    problems = []
    if layer.quote != "full":
        problems.append(
            ConfigProblem(f"{path}.quote", layer.quote, why, "Use quote: full, or another layout.")
        )
    if layer.max_quote_tokens is not None:
        problems.append(
            ConfigProblem(
                f"{path}.max_quote_tokens",
                str(layer.max_quote_tokens),
                why,
                "Remove it and bound the layer before's max_completion_tokens instead.",
            )
        )
    for key in ("system_prompt", "user_template"):
        value = getattr(layer, key)
        if value is not None:
            problems.append(
                ConfigProblem(
                    f"{path}.{key}",
                    repr(value[:40]),
                    "has no effect with layout: self_continue, which opens no new turn.",
                    "Remove the key.",
                )
            )
    return problems


def learner_problems(config: RunConfig) -> list[ConfigProblem]:
    problems = []
    longest = context_needed(config, config.data.max_prompt_tokens, guidance_tokens=0)
    if config.learner.microbatch_tokens < longest:
        problems.append(
            ConfigProblem(
                "learner.microbatch_tokens",
                str(config.learner.microbatch_tokens),
                f"a sequence can have {longest} tokens (data.max_prompt_tokens "
                f"{config.data.max_prompt_tokens} + attempt + completion), and one micro-batch "
                "must hold a whole sequence.",
                f"Nearest valid value: {longest}; or lower the layers' max_completion_tokens.",
            )
        )
    if config.learner.num_ranks > config.max_completions_per_step:
        problems.append(
            ConfigProblem(
                "learner.num_ranks",
                str(config.learner.num_ranks),
                f"a step has only {config.max_completions_per_step} completions, so some ranks "
                "would have nothing to do.",
                f"Nearest valid value: {config.max_completions_per_step}.",
            )
        )
    return problems


def warnings_of(config: RunConfig) -> list[str]:
    """What is legal and probably not meant, one sentence each, with the key's path."""
    warnings = []
    for depth, layer in enumerate(config.layers[1:], start=1):
        warnings += layer_warnings(layer, f"layers.{depth}")
    if config.objective.update_order == "sequential" and len(config.layers) == 1:
        warnings.append("objective.update_order: sequential is joint when there is one layer.")
    if config.learner.warmup_steps >= config.steps:
        warnings.append(
            f"learner.warmup_steps ({config.learner.warmup_steps}) is not below steps "
            f"({config.steps}): the learning rate never reaches {config.learner.learning_rate:g}."
        )
    if config.data.heldout is None:
        warnings.append(
            "data.heldout is not set: there will be no accuracy before and after training."
        )
    if config.evaluation.decoding == "greedy" and config.evaluation.temperature != 1.0:
        warnings.append("evaluation.temperature has no effect with evaluation.decoding: greedy.")
    return [*warnings, *objective_warnings(config), *engine_warnings(config)]


def layer_warnings(layer: LayerConfig, path: str) -> list[str]:
    warnings = []
    if layer.select == "success_only_pre_norm" and layer.advantage == "group_z":
        warnings.append(
            f"{path}.select: success_only_pre_norm with advantage: group_z trains nothing where "
            "rewards are right or wrong: only successes are left, all equal, so every advantage "
            "is 0. Use success_only_post_norm or groups_with_success, or advantage: "
            "const_positive."
        )
    guidance = layer.guidance
    if guidance.draw == "per_correction" and layer.group_by == "parent":
        warnings.append(
            f"{path}.guidance.draw: per_correction gives the corrections of one parent different "
            "phrases, so a group's prompts are not quite equal."
        )
    if guidance.weights is not None and guidance.draw != "weighted":
        warnings.append(
            f"{path}.guidance.weights has no effect with guidance.draw: {guidance.draw}."
        )
    if guidance.fixed_index and guidance.draw != "fixed":
        warnings.append(
            f"{path}.guidance.fixed_index has no effect with guidance.draw: {guidance.draw}."
        )
    return warnings


def engine_warnings(config: RunConfig) -> list[str]:
    if not config.engines.shared:
        if config.engines.num_shared_engines.max > 1:
            return ["engines.num_shared_engines has no effect with engines.shared: false."]
        return []
    return [
        f"layers.{depth}.num_engines has no effect with engines.shared: true."
        for depth, layer in enumerate(config.layers)
        if layer.num_engines.max > 1
    ]
