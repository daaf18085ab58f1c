"""Warnings about keys of a recipe that are valid but probably not intended: one sentence each, the
key first."""

from __future__ import annotations

from collections.abc import Sequence

from mgrpo.config.advantages import GroupZ
from mgrpo.config.default_prompts import READ_BOXES, READ_PROGRAMS, suits_any_check
from mgrpo.config.engines import EnginesConfig
from mgrpo.config.layers import LaterLayer, LayerConfig, later_layers
from mgrpo.config.losses import PpoClip
from mgrpo.config.parts import Part
from mgrpo.config.rewards import RewardsConfig
from mgrpo.config.run import RunConfig
from mgrpo.sources import is_on_policy


def warnings_of(config: RunConfig) -> list[str]:
    """Valid but probably unintended settings, one sentence each, with the key's path."""
    warnings = []
    for depth, layer in enumerate(later_layers(config.layers), start=1):
        warnings += layer_warnings(layer, f"layers.{depth}")
    if config.objective.update_order.type == "sequential" and len(config.layers) == 1:
        warnings.append("objective.update_order: sequential is joint when there is one layer.")
    if config.learner.warmup_steps >= config.steps:
        warnings.append(
            f"learner.warmup_steps ({config.learner.warmup_steps}) is not below steps "
            f"({config.steps}): the learning rate never reaches {config.learner.learning_rate:g}."
        )
    if config.data.heldout is None:
        warnings.append(
            "data.heldout is not set: no accuracy is measured before and after training."
        )
    if config.evaluation.decoding == "greedy" and config.evaluation.temperature != 1.0:
        warnings.append("evaluation.temperature has no effect with evaluation.decoding: greedy.")
    return [
        *warnings,
        *clip_warnings(config.objective.loss, is_on_policy=is_on_policy(config.method_view)),
        *kl_warnings(config.objective.kl.estimator, config.method_view.max_kl_weight),
        *engine_warnings(config.engines, config.layers),
        *group_reward_warnings(config.rewards, config.layers),
        *prompt_warnings(config.rewards, config.layers),
    ]


def layer_warnings(layer: LaterLayer, path: str) -> list[str]:
    warnings = []
    if layer.select == "success_only_pre_norm" and isinstance(layer.advantage, GroupZ):
        warnings.append(
            f"{path}.select: success_only_pre_norm with advantage: group_z trains nothing where "
            "rewards are right or wrong: only successes are left, all equal, so every advantage "
            "is 0. Use success_only_post_norm or groups_with_success, or advantage: "
            "const_positive."
        )
    if layer.guidance.draw.type == "per_correction" and layer.group_by == "parent":
        warnings.append(
            f"{path}.guidance.draw: per_correction gives the corrections of one parent different "
            "phrases, so a group's prompts are not quite equal."
        )
    return warnings


def group_reward_warnings(rewards: RewardsConfig, layers: Sequence[LayerConfig]) -> list[str]:
    """Of functions that get a whole group, where a layer scores a group in parts."""
    names = [term.function for term in rewards.terms if term.FOR_GROUP]
    parted = []
    for depth, layer in enumerate(later_layers(layers), start=1):
        if layer.early_stop.type != "never":
            parted.append(f"layers.{depth}.early_stop")
        if layer.guidance.draw.type == "per_correction":
            parted.append(f"layers.{depth}.guidance.draw: per_correction")
    if not (names and parted):
        return []
    return [
        f"{' and '.join(parted)}: groups are sampled and scored in parts there, and "
        f"{', '.join(names)} is called for each part."
    ]


def prompt_warnings(rewards: RewardsConfig, layers: Sequence[LayerConfig]) -> list[str]:
    """Of default prompts that ask for a boxed result, where programs are checked too."""
    functions = {term.function for term in rewards.terms}
    programs = functions & set(READ_PROGRAMS)
    if not (programs and functions & set(READ_BOXES)):
        return []
    return [
        f"layers.{depth}.system_prompt is not set: the default asks for a result in \\boxed{{}}, "
        f"and {', '.join(programs)} reads a block of code. Set system_prompt of each source."
        for depth, layer in enumerate(layers)
        if layer.system_prompt is None and not suits_any_check(layer)
    ]


def engine_warnings(engines: EnginesConfig, layers: Sequence[LayerConfig]) -> list[str]:
    if not engines.shared:
        why = "engines.num_shared_engines has no effect without engines.shared: true."
        return [why] if engines.pool.max > 1 else []
    return [
        f"layers.{depth}.num_engines has no effect with engines.shared: true."
        for depth, layer in enumerate(layers)
        if layer.num_engines.max > 1
    ]


def clip_warnings(loss: PpoClip | Part, *, is_on_policy: bool) -> list[str]:
    """In the first optimizer step of a rollout every ratio is 1 and nothing is clipped."""
    if not isinstance(loss, PpoClip) or not is_on_policy:
        return []
    return [
        f"objective.loss.{key} has no effect with one optimizer step per rollout "
        "(objective.minibatches: 1, objective.updates_per_rollout: 1), where every ratio is 1."
        for key in loss.model_dump(exclude_defaults=True)
    ]


def kl_warnings(estimator: str, max_weight: float) -> list[str]:
    if max_weight == 0 and estimator != "k3":
        return [f"objective.kl.estimator: {estimator} has no effect: every KL weight is 0."]
    if max_weight > 0 and estimator == "k1":
        return [
            "objective.kl.estimator: k1 has an expected gradient of 0, so the KL term has no "
            "effect. Use k2 or k3, or the plug-in kl_in_reward."
        ]
    return []
