"""Plug-ins: a method's own parts. A recipe names them, and a user's are treated like ours.

    plugins:
      - use: entropy_advantage              # one of ours
      - use: my_package.my_module:MyPart    # any importable class; or ./my_file.py:MyPart
        layers: [solve]
        settings: {strength: 0.5}

A plug-in derives from `actors.plugin.RolloutPlugin` (changes what is sampled), from
`learner.plugin.LearnerPlugin` (changes what is learned from it), from
`mgrpo.training.sources.source.SourcePlugin` (says what a step trains on), or from several; its
hooks are the methods that it overrides. It is instantiated in the process where it works, so an
instance that overrides hooks of both kinds exists twice and shares nothing but its settings.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import ValidationError

from mgrpo.config.base import StrictConfig
from mgrpo.config.explain import explain
from mgrpo.errors import ConfigError, ConfigProblem
from mgrpo.own_code import import_own
from mgrpo.registry import declared, load

if TYPE_CHECKING:
    from mgrpo.config import RunConfig
    from mgrpo.config.plugins import PluginConfig


class Plugin:
    """What all plug-ins share. The docstring of a subclass is shown by `mgrpo methods`."""

    Settings: ClassVar[type[StrictConfig]] = StrictConfig
    """Its keys: a strict pydantic model, so that a misspelt one is refused."""

    def __init__(self, settings: StrictConfig, layers: frozenset[int]) -> None:
        """
        Args:
            settings: an instance of `Settings`.
            layers: numbers of the layers that it works on, 1 for the first.
        """
        self.settings: Any = settings
        self.layers = layers

    @classmethod
    def problems(
        cls, settings: Any, layers: frozenset[int], config: RunConfig
    ) -> list[ConfigProblem]:
        """What of the recipe this plug-in cannot work with. Paths are relative to `settings`."""
        return []

    @classmethod
    def warnings(cls, settings: Any, layers: frozenset[int], config: RunConfig) -> list[str]:
        """What of the recipe does nothing beside this plug-in, or the same thing twice: a sentence
        each. `mgrpo check` and `mgrpo train` show them (see mgrpo/check/plugin_warnings.py)."""
        return []

    @classmethod
    def exclusive_hooks(cls) -> list[str]:
        """Hooks of this class that no other plug-in of a recipe may have too."""
        return []

    @classmethod
    def overrides(cls, hook: str, base: type[object]) -> bool:
        """True where this class has a hook of its own."""
        return getattr(cls, hook, None) is not getattr(base, hook, None)


AnyPlugin = TypeVar("AnyPlugin", bound=Plugin)


def find_plugin(name: str) -> type[Plugin]:
    """The class that a recipe's `use` names.

    Raises:
        ValueError: there is none, with what to do.
    """
    ours = declared("PLUGINS")
    module_name, colon, attribute = name.partition(":")
    if name not in ours and not colon:
        near = difflib.get_close_matches(name, ours, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"is no plug-in. {hint}Ours: {', '.join(ours)}; "
            "your own is named package.module:Class or ./file.py:Class."
        )
    try:
        if name in ours:
            found = load("PLUGINS", name)
        else:
            found = getattr(import_own(module_name), attribute)
    except Exception as error:  # a user's module raises what it likes when it is imported
        raise ValueError(f"cannot be imported: {type(error).__name__}: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, Plugin)):
        raise ValueError(
            "is not a class that derives from LearnerPlugin, RolloutPlugin or SourcePlugin."
        )
    return found


def layer_numbers(entry: PluginConfig, config: RunConfig) -> frozenset[int]:
    """The layers that an entry works on, 1 for the first.

    Raises:
        ValueError: a name is no layer's, or there is none.
    """
    names = [layer.name for layer in config.layers]
    if entry.layers is None:
        return frozenset(range(1, len(names) + 1))
    if not entry.layers:
        raise ValueError("names no layer, so it would do nothing. Leave the key out for all.")
    unknown = [name for name in entry.layers if name not in names]
    if unknown:
        raise ValueError(f"there is no layer {unknown[0]!r}. Layers: {', '.join(names)}.")
    return frozenset(names.index(name) + 1 for name in entry.layers)


def make_plugin(entry: PluginConfig, config: RunConfig, path: str) -> Plugin:
    """One plug-in, validated.

    Raises:
        ConfigError: with every problem of the entry, paths beginning with `path`.
    """
    try:
        kind = find_plugin(entry.use)
    except ValueError as error:
        raise ConfigError([ConfigProblem(f"{path}.use", entry.use, str(error))]) from error
    try:
        layers = layer_numbers(entry, config)
    except ValueError as error:
        raise ConfigError(
            [ConfigProblem(f"{path}.layers", str(entry.layers), str(error))]
        ) from error
    try:
        settings = kind.Settings.model_validate(entry.settings)
    except ValidationError as error:
        problems = explain(error, kind.Settings)
    else:
        problems = kind.problems(settings, layers, config)
        problems += problems_of_phases(kind, settings, layers, config, known=problems)
        if not problems:
            return kind(settings, layers)
    raise ConfigError([replace(one, path=place_of(one.path, path)) for one in problems])


def problems_of_phases(
    kind: type[Plugin],
    settings: Any,
    layers: frozenset[int],
    config: RunConfig,
    *,
    known: Sequence[ConfigProblem],
) -> list[ConfigProblem]:
    """What a plug-in cannot work with in the recipe's phases, beside what is `known` already."""
    found: list[ConfigProblem] = []
    for phase, (_, changed) in zip(config.phases, config.phase_configs[1:], strict=True):
        found += [
            replace(one, reason=f"in phase {phase.name!r} {one.reason}")
            for one in kind.problems(settings, layers, changed)
            if one not in known
        ]
    return found


def place_of(path: str, entry: str) -> str:
    """Where in the recipe a problem of an entry is: a path in brackets is the recipe's own,
    "(plug-in)" the entry itself, and any other one of its settings."""
    if path == "(plug-in)":
        return f"{entry}.use"
    if path.startswith("("):
        return path.strip("()")
    return f"{entry}.settings.{path}"


def load_plugins(config: RunConfig, kind: type[AnyPlugin]) -> list[AnyPlugin]:
    """The recipe's plug-ins of one kind, in the recipe's order.

    Raises:
        ConfigError: with every problem of every entry.
    """
    problems: list[ConfigProblem] = []
    made: list[AnyPlugin] = []
    holders: dict[str, str] = {}  # of hooks that only one plug-in may have
    for index, entry in enumerate(config.plugins):
        try:
            plugin = make_plugin(entry, config, f"plugins.{index}")
        except ConfigError as error:
            problems += error.problems
            continue
        for hook in plugin.exclusive_hooks():
            if hook in holders:
                problems.append(
                    ConfigProblem(
                        f"plugins.{index}.use",
                        entry.use,
                        f"has {hook}, and so has {holders[hook]}: only one of a recipe may.",
                        "Remove one of them.",
                    )
                )
            holders[hook] = entry.use
        if isinstance(plugin, kind):
            made.append(plugin)
    if problems:
        raise ConfigError(problems)
    return made
