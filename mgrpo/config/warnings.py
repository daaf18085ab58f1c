"""Keys of a recipe that are legal and probably not meant: one sentence each, the key first."""

from __future__ import annotations

from mgrpo.config.data import has_one_domain
from mgrpo.config.layers import CorrectLayer, corrections_of
from mgrpo.config.learner import AdvantageConfig, ErrorPoolConfig, ObjectiveConfig
from mgrpo.config.run import RunConfig

CLIP_KEYS = ("clip_low", "clip_high", "dual_clip")


def warnings_of(config: RunConfig) -> list[str]:
    """What is legal and probably not meant, one sentence each, with the key's path."""
    warnings = []
    for depth, layer in enumerate(corrections_of(config.layers), start=1):
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


def layer_warnings(layer: CorrectLayer, path: str) -> list[str]:
    warnings = []
    if layer.select == "success_only_pre_norm" and layer.advantage == "group_z":
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


def objective_warnings(config: RunConfig) -> list[str]:
    """One sentence each, beginning with the key."""
    return [
        *clip_warnings(config),
        *kl_warnings(config),
        *advantage_warnings(config),
        *unused_section_warnings(config),
    ]


def clip_warnings(config: RunConfig) -> list[str]:
    """In the first update of a rollout every ratio is 1 and nothing is clipped."""
    has_ratios = any(
        phase.objective.updates_per_rollout > 1 or phase.objective.correction_buffer is not None
        for _, phase in config.phase_configs
    )
    if has_ratios:
        return []
    return [
        f"objective.{key} has no effect with objective.updates_per_rollout: 1, where every ratio "
        "is 1."
        for key in CLIP_KEYS
        if getattr(config.objective, key) != ObjectiveConfig.model_fields[key].default
    ]


def kl_warnings(config: RunConfig) -> list[str]:
    estimator = config.objective.kl.estimator
    if config.max_kl_weight == 0:
        if estimator == "k3":
            return []
        return [f"objective.kl.estimator: {estimator} has no effect: every KL weight is 0."]
    if estimator == "k1":
        return [
            "objective.kl.estimator: k1 has an expected gradient of 0, so the KL term holds "
            "nothing back. Use k2 or k3, or the plug-in kl_in_reward."
        ]
    return []


def advantage_warnings(config: RunConfig) -> list[str]:
    """Keys of the group's z-score where no layer takes one."""
    has_z_score = any(
        layer.advantage == "group_z" for _, phase in config.phase_configs for layer in phase.layers
    )
    if has_z_score:
        return []
    return [
        f"objective.advantage.{key} has no effect: no layer has advantage: group_z."
        for key in AdvantageConfig.model_fields
        if getattr(config.objective.advantage, key) != AdvantageConfig.model_fields[key].default
    ]


def unused_section_warnings(config: RunConfig) -> list[str]:
    objective, warnings = config.objective, []
    if objective.importance.mode == "off" and objective.importance.cap != 2.0:
        warnings.append(
            "objective.importance.cap has no effect with objective.importance.mode: off."
        )
    if objective.update_order != "pooled_errors" and objective.error_pool != ErrorPoolConfig():
        warnings.append(
            f"objective.error_pool has no effect with objective.update_order: "
            f"{objective.update_order}."
        )
    if config.data.robust is not None and has_one_domain(config.data.train):
        warnings.append("data.robust has no effect: all problems of data.train are of one domain.")
    return warnings
