"""Two methods as one recipe: does what one changes go with what the other changes?

The rule: the second recipe's method keys are laid over the first's.

- layers, by name: keys that the second sets other than their default replace the first's; layers
  that the first lacks follow behind, as the second has them. Keys that suit a layer to a model
  (lengths, templates, engines) stay the first's.
- sampling, rewards, objective and data.robust: keys that the second sets other than their default
  replace the first's.
- plug-ins: the second's follow behind the first's; one that both use stands once, where the first
  has it, with the second's settings.
- phases: the second's, where it has any; else the first's.

Everything else (data, model, learner, cluster) is the first's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from mgrpo.config import LayerConfig, PluginConfig, RunConfig
from mgrpo.config.explain import explain
from mgrpo.errors import ConfigError
from mgrpo.methods.catalog import KEYS_OF_THE_MODEL, SECTIONS


def combined(first: RunConfig, second: RunConfig) -> RunConfig:
    """The second method over the first.

    Raises:
        ConfigError: the two do not go together, with every reason.
    """
    tree = first.model_dump(mode="json")
    tree["name"] = f"{first.name}_{second.name}"
    tree["method"] = f"{first.method} with {second.method}"
    tree["layers"] = combined_layers(first.layers, second.layers)
    for section in SECTIONS:
        tree[section] = laid_over(tree[section], changes(getattr(second, section)))
    if second.data.robust is not None:
        tree["data"]["robust"] = second.data.robust.model_dump(mode="json")
    tree["plugins"] = combined_plugins(first.plugins, second.plugins)
    if second.phases:
        tree["phases"] = [phase.model_dump(mode="json") for phase in second.phases]
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain(error, RunConfig), source=tree["name"]) from error


def combined_layers(
    first: Sequence[LayerConfig], second: Sequence[LayerConfig]
) -> list[dict[str, Any]]:
    over = {layer.name: layer for layer in second}
    layers = []
    for layer in first:
        own = layer.model_dump(mode="json")
        if layer.name in over:
            own = laid_over(own, changes(over.pop(layer.name), without=KEYS_OF_THE_MODEL))
        layers.append(own)
    return layers + [layer.model_dump(mode="json") for layer in over.values()]


def combined_plugins(
    first: Sequence[PluginConfig], second: Sequence[PluginConfig]
) -> list[dict[str, Any]]:
    over = {entry.use: entry for entry in second}
    entries = [over.pop(entry.use, entry) for entry in first]
    return [entry.model_dump(mode="json") for entry in [*entries, *over.values()]]


def changes(section: Any, without: Sequence[str] = ()) -> dict[str, Any]:
    """What of a section is not at its default."""
    tree = section.model_dump(mode="json", exclude_defaults=True)
    return {key: value for key, value in tree.items() if key not in without}


def laid_over(tree: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The first tree with the second's leaves in place of its own."""
    result = dict(tree)
    for key, value in over.items():
        is_both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = laid_over(result[key], value) if is_both else value
    return result
