"""Keys of the objective and of the data that do nothing as the recipe is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mgrpo.config.data import DataSource, ReasoningGymSource
from mgrpo.config.learner import AdvantageConfig, ErrorPoolConfig, ObjectiveConfig

if TYPE_CHECKING:
    from mgrpo.config.run import RunConfig

CLIP_KEYS = ("clip_low", "clip_high", "dual_clip")


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


def has_one_domain(source: DataSource) -> bool:
    """True where no two problems can be of different domains."""
    if isinstance(source, ReasoningGymSource):
        return len({task.name for task in source.tasks}) == 1
    return source.domain_field is None
