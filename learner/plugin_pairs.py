"""Questions of plug-ins about the rest of a recipe."""

from __future__ import annotations

from learner.plugin import LearnerPlugin, PolicyLoss
from mgrpo.config import GroupZ, LayerConfig, MethodView, RewardsConfig
from mgrpo.config.parts import Part
from mgrpo.errors import ConfigFault
from mgrpo.plugin import find_plugin

WEIGHS_HARD = "also increases the weight of failures; the factors multiply"
FEWEST_TOKENS = 10  # fewer of all tokens have almost no effect


def unknown_check_faults(rewards: RewardsConfig, key: str, part: str | None) -> list[ConfigFault]:
    """Of a key that names one of the recipe's checks, or "check#part" of it."""
    checks = [term.function for term in rewards.terms]
    if part is None or part.partition("#")[0] in checks:
        return []
    return [ConfigFault(key, part, f"is not one of the recipe's checks: {', '.join(checks)}.")]


def parts_with(hook: str, method: MethodView) -> list[str]:
    """Entries of `plugins` whose classes have a hook of the learner."""
    found = []
    for entry in method.plugins:
        try:
            kind = find_plugin(entry.use)
        except ValueError:
            continue  # reported where that plug-in is made
        if issubclass(kind, LearnerPlugin) and kind.overrides(hook, LearnerPlugin):
            found.append(entry.use)
    return found


def is_of_whole_completions(method: MethodView) -> bool:
    """True where the loss has one value for all tokens of a completion."""
    loss = method.objective.loss
    if not isinstance(loss, Part):
        return False  # the trainer's own
    try:
        kind = find_plugin(loss.type, "LOSSES")
    except ValueError:
        return False  # reported where the loss is made
    return issubclass(kind, PolicyLoss) and kind.whole_completion


def is_z_scored(layer: LayerConfig) -> bool:
    """True where a layer that trains divides advantages by its groups' spread."""
    return layer.loss_weight > 0 and (
        isinstance(layer.advantage, GroupZ) and layer.advantage.scale_by_std
    )


def small_share_warnings(
    share: float, layers: frozenset[int], method: MethodView, num_completions: int
) -> list[str]:
    """Of a share of these completions' tokens that is hardly any at this recipe's scale."""
    longest = max(method.layers[number - 1].max_completion_tokens for number in layers)
    most = num_completions * longest
    if share * most >= FEWEST_TOKENS:
        return []
    return [
        f"share: {share:g} of {most:,} tokens, at most, is {max(1, int(share * most))}: "
        f"it has almost no effect. From {FEWEST_TOKENS / most:.2g} on it would be "
        f"{FEWEST_TOKENS} or more."
    ]
