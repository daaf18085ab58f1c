"""What plug-ins ask about the rest of a recipe, to say which of their keys do nothing or twice.

A warning begins with the key or the plug-in that it is about and ends with a full stop; where it
stands in the recipe is put before it (`mgrpo.check.plugin_warnings`).
"""

from __future__ import annotations

from learner.plugin import LearnerPlugin
from mgrpo.config import RunConfig
from mgrpo.config.base import StrictConfig
from mgrpo.plugin import find_plugin

ROW_WEIGHTS = ("agro", "group_dro", "lead")
"""Our plug-ins that multiply advantages by how often the policy fails."""


def used(config: RunConfig, *names: str) -> list[str]:
    """Those of the names that the recipe uses."""
    there = {entry.use for entry in config.plugins}
    return [name for name in names if name in there]


def has_foreign(config: RunConfig) -> bool:
    """True where the recipe has a user's own plug-in, of which nothing is known."""
    return any(":" in entry.use for entry in config.plugins)


def others_with(hook: str, use: str, config: RunConfig) -> list[str]:
    """The recipe's other plug-ins that have a hook of the learner."""
    found = []
    for entry in config.plugins:
        try:
            kind = find_plugin(entry.use)
        except ValueError:
            continue  # reported where that plug-in is made
        has_it = issubclass(kind, LearnerPlugin) and kind.overrides(hook, LearnerPlugin)
        if entry.use != use and has_it:
            found.append(entry.use)
    return found


def is_on_policy(config: RunConfig) -> bool:
    """True where every ratio to the policy that sampled is exactly 1, in every phase."""
    return all(
        phase.objective.updates_per_rollout == 1 and phase.objective.correction_buffer is None
        for _, phase in config.phase_configs
    )


def unused(settings: StrictConfig, *keys: str, because: str) -> list[str]:
    """A warning for each key that is set and does nothing."""
    return [
        f"settings.{key} has no effect {because}."
        for key in keys
        if getattr(settings, key) != type(settings).model_fields[key].default
    ]


def z_scored_layers(layers: frozenset[int], config: RunConfig, use: str) -> list[str]:
    """Names of the plug-in's layers whose advantages are divided by the group's spread."""
    if others_with("estimate_advantages", use, config):
        return []
    return [
        layer.name
        for number, layer in enumerate(config.layers, start=1)
        if number in layers
        and layer.loss_weight > 0
        and layer.advantage == "group_z"
        and config.objective.advantage.scale_by_std
    ]


def row_weight_warnings(use: str, layers: frozenset[int], config: RunConfig) -> list[str]:
    """Of plug-ins that weigh prompts or domains up where the policy fails."""
    warnings = [
        f"{other} also gives more weight to what the policy fails at; the factors multiply."
        for other in used(config, *ROW_WEIGHTS[ROW_WEIGHTS.index(use) + 1 :])
    ]
    if config.data.robust is not None:
        warnings.append(
            "data.robust also draws more problems from domains where the policy fails: they "
            "count twice."
        )
    if z_scored_layers(layers, config, use):
        warnings.append(
            "objective.advantage.scale_by_std: true gives rare outcomes large advantages already, "
            "so hard prompts count twice. Set it to false."
        )
    return warnings


FEWEST_TOKENS = 10  # fewer of a whole step's tokens change next to nothing


def small_share_warnings(share: float, layers: frozenset[int], config: RunConfig) -> list[str]:
    """Of a share of the step's tokens that is hardly any at this recipe's scale."""
    longest = max(config.layers[number - 1].max_completion_tokens for number in layers)
    most = config.max_completions_per_step * longest
    if share * most >= FEWEST_TOKENS:
        return []
    return [
        f"settings.share: {share:g} of a step's tokens, {most:,} at most, is "
        f"{max(1, int(share * most))}: next to nothing changes. From {FEWEST_TOKENS / most:.2g} "
        f"on it would be {FEWEST_TOKENS} or more."
    ]


def refills_whole_steps(config: RunConfig) -> bool:
    """True where sampling.dynamic replaces every group of layer 1 that is all right or wrong."""
    dynamic = config.sampling.dynamic
    return dynamic is not None and dynamic.min_mixed_fraction == 1


def uniform_filter_warnings(config: RunConfig) -> list[str]:
    """Of a filter that drops groups which sampling.dynamic has replaced before."""
    if not refills_whole_steps(config):
        return []
    return [
        "leaves out groups that are all right or all wrong, and sampling.dynamic has replaced "
        "those of layer 1 before."
    ]
