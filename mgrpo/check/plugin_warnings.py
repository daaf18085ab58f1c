"""What of a recipe's plug-ins does nothing, or the same thing twice: legal, probably not meant."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from mgrpo.config import PluginConfig, RunConfig
from mgrpo.plugin import Plugin, find_plugin, layer_numbers

ESTIMATES = "estimate_advantages"
COMPARISONS = ("group_z", "raw_reward")
"""Values of layers.N.advantage that say nothing beside a plug-in with advantages of its own: the
default, and the one that names plain rewards."""


def plugin_warnings(config: RunConfig) -> list[str]:
    """One sentence each, beginning with the entry. Entries that cannot be loaded have none."""
    found: list[str] = []
    for index, entry in enumerate(config.plugins):
        where = f"plugins.{index} ({entry.use})"
        found += [f"{where}: {text}" for text in entry_warnings(config, index, entry)]
    return list(dict.fromkeys(found))


def entry_warnings(config: RunConfig, index: int, entry: PluginConfig) -> list[str]:
    """All that is to be said of one entry."""
    try:
        kind = find_plugin(entry.use)
        layers = layer_numbers(entry, config)
        settings = kind.Settings.model_validate(entry.settings)
    except (ValueError, ValidationError):
        return []
    return [
        *kind.warnings(settings, layers, config),
        *repeated(config, index, entry, layers),
        *untrained(config, kind, layers),
        *replaced_advantages(config, kind, layers),
    ]


def repeated(
    config: RunConfig, index: int, entry: PluginConfig, layers: frozenset[int]
) -> Iterator[str]:
    """The same plug-in before it, on one of its layers."""
    for earlier_index, earlier in enumerate(config.plugins[:index]):
        if earlier.use == entry.use and layer_numbers(earlier, config) & layers:
            yield f"is plugins.{earlier_index} too, so what it does is done twice."


def untrained(config: RunConfig, kind: type[Plugin], layers: frozenset[int]) -> Iterator[str]:
    """It changes what is learned, and nothing of its layers is."""
    from learner.plugin import LearnerPlugin  # it imports torch

    trains = any(
        phase.layers[number - 1].loss_weight > 0
        for _, phase in config.phase_configs
        for number in layers
    )
    if issubclass(kind, LearnerPlugin) and not trains:
        names = ", ".join(config.layers[number - 1].name for number in sorted(layers))
        yield f"works only on {names} with loss_weight 0: it has no effect."


def replaced_advantages(
    config: RunConfig, kind: type[Plugin], layers: frozenset[int]
) -> Iterator[str]:
    """Keys of the advantages that its own take the place of."""
    if ESTIMATES not in kind.exclusive_hooks():
        return
    for number, layer in enumerate(config.layers, start=1):
        if number in layers and layer.advantage not in COMPARISONS:
            yield (
                f"has advantages of its own: layers.{number - 1}.advantage: {layer.advantage} has "
                "no effect."
            )
    has_z_score = any(layer.advantage == "group_z" for layer in config.layers)  # else said of it
    if len(layers) == len(config.layers) and has_z_score:
        for key, value in config.objective.advantage.model_dump(exclude_defaults=True).items():
            yield (f"has advantages of its own: objective.advantage.{key}: {value} has no effect.")
