"""Plug-ins: a method's own parts. A recipe names them, and a user's are treated like ours.

    plugins:
      - use: entropy_advantage              # one of ours
      - use: my_package.my_module:MyPart    # any importable class; or ./my_file.py:MyPart
        layers: [solve]
        settings: {strength: 0.5}

A plug-in derives from `actors.plugin.RolloutPlugin` (changes what is sampled), from
`learner.plugin.LearnerPlugin` (changes what is learned from it), or from both; its hooks are the
methods that it overrides. What fills a slot is a plug-in too (see mgrpo/config/parts.py). It is
instantiated in the process where it works, so an instance that overrides hooks of both kinds exists
twice and shares nothing but its settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import ValidationError

from mgrpo.config.base import StrictConfig
from mgrpo.config.explain import explain
from mgrpo.config.own_code import import_own
from mgrpo.config.parts import HOMES, Part, choices, elsewhere, home_of
from mgrpo.config.resume import OnResume
from mgrpo.config.sources import stacked
from mgrpo.errors import ConfigError, ConfigFault, Faults
from mgrpo.registry import Kind, declared, load

if TYPE_CHECKING:
    from mgrpo.config import LayerConfig, MethodView
    from mgrpo.config.plugins import PluginConfig


RENAMED_HOOKS = {"problems": "faults", "wanted_signals": "wanted_measurements"}
"""Of plug-ins written before: the base class would never call them."""


class Plugin:
    """Base of all plug-ins. `mgrpo methods` shows the docstring of a subclass."""

    kind: ClassVar[Kind] = "PLUGINS"
    """Where a recipe names it: in `plugins`, or in a slot (see mgrpo/config/parts.py)."""
    Settings: ClassVar[type[StrictConfig]] = StrictConfig
    """Its keys: a strict pydantic model, so that a misspelt one is refused."""

    needs: ClassVar[tuple[str, ...]] = ()
    """Parts of which a recipe must have one beside it, e.g. one that marks the spans that it reads.
    A user's own part may do instead."""
    read_by: ClassVar[tuple[str, ...]] = ()
    """Parts of which a recipe should have one, since nothing else reads what it makes."""
    overlaps: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Parts that do the same in part, and what that means."""
    may_change: ClassVar[frozenset[str]] = frozenset()
    """Settings that phases may change, since they are read anew in each step."""
    on_resume: ClassVar[Mapping[str, OnResume]] = MappingProxyType({})
    """What a resumed run may do to its settings, by key; all others are fixed."""

    def __init_subclass__(cls) -> None:
        for old, new in RENAMED_HOOKS.items():
            if old in vars(cls):
                raise TypeError(f"{cls.__qualname__}.{old}: this hook is called {new} now.")

    def __init__(self, settings: StrictConfig, layers: frozenset[int]) -> None:
        """
        Args:
            settings: an instance of `Settings`.
            layers: numbers of the layers that it works on, 1 for the first.
        """
        self.settings: Any = settings
        self.layers = layers

    def works_by_tree(self) -> bool:
        """Whether it treats each problem of a step by itself (`learner.plugin`)."""
        return True

    @classmethod
    def needed(cls, settings: Any) -> tuple[str, ...]:
        """`needs`, or fewer where the settings make them unneeded."""
        return cls.needs

    @classmethod
    def faults(cls, settings: Any, layers: frozenset[int], method: MethodView) -> Faults:
        """The recipe's settings that are incompatible with this plug-in: a list, or yielded. Paths
        are relative to `settings`."""
        return []

    @classmethod
    def warnings(cls, settings: Any, layers: frozenset[int], method: MethodView) -> Iterable[str]:
        """The recipe's settings without effect beside this plug-in, or duplicated by it: a sentence
        each. `mgrpo check` and `mgrpo train` show them (see mgrpo/check/plugin_warnings.py)."""
        return []

    @classmethod
    def overrides(cls, hook: str, base: type[object]) -> bool:
        """True where this class has a hook of its own."""
        return getattr(cls, hook, None) is not getattr(base, hook, None)


AnyPlugin = TypeVar("AnyPlugin", bound=Plugin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One part of a recipe that is code of its own: an entry of `plugins`, or what fills a slot."""

    kind: Kind
    name: str  # declared, or "package.module:Class"
    settings: Mapping[str, Any]
    layers: frozenset[int]  # numbers of those that it works on, 1 for the first
    path: str  # where the recipe has it: "plugins.0", "objective.loss"

    @property
    def name_path(self) -> str:
        return f"{self.path}.use" if self.kind == "PLUGINS" else self.path

    @property
    def settings_path(self) -> str:
        return f"{self.path}.settings" if self.kind == "PLUGINS" else self.path


def slot_entries(method: MethodView) -> list[Entry]:
    """What fills the slots and is not the trainer's own. Layers with equal advantages share one."""
    everywhere = frozenset(range(1, len(method.layers) + 1))
    advantages: list[tuple[Part, list[int]]] = []
    for number, layer in enumerate(method.layers, start=1):
        if isinstance(layer.advantage, Part):
            same = [numbers for part, numbers in advantages if part == layer.advantage]
            if same:
                same[0].append(number)
            else:
                advantages.append((layer.advantage, [number]))
    found = [
        slot_entry("ADVANTAGES", part, frozenset(numbers), f"layers.{numbers[0] - 1}.advantage")
        for part, numbers in advantages
    ]
    if isinstance(method.objective.loss, Part):
        found.append(slot_entry("LOSSES", method.objective.loss, everywhere, "objective.loss"))
    if isinstance(method.objective.importance, Part):
        part = method.objective.importance
        found.append(slot_entry("IMPORTANCE", part, everywhere, "objective.importance"))
    if isinstance(method.data.sampler, Part):
        found.append(slot_entry("SAMPLERS", method.data.sampler, everywhere, "data.sampler"))
    sources = stacked(method.source)
    for depth, source in enumerate(sources, start=1):
        path = "source" + ".above" * (len(sources) - depth)
        found.append(slot_entry("SOURCES", source, everywhere, path))
    return found


def slot_entry(kind: Kind, part: Part, layers: frozenset[int], path: str) -> Entry:
    return Entry(kind=kind, name=part.type, settings=part.settings, layers=layers, path=path)


def plugin_entry(entry: PluginConfig, chain: Sequence[LayerConfig], index: int) -> Entry:
    """An entry of `plugins`.

    Raises:
        ConfigError: it names a layer that is not there, or none.
    """
    path = f"plugins.{index}"
    try:
        layers = layer_numbers(entry, chain)
    except ValueError as error:
        fault = ConfigFault(f"{path}.layers", str(entry.layers), str(error))
        raise ConfigError([fault]) from error
    return Entry(kind="PLUGINS", name=entry.use, settings=entry.settings, layers=layers, path=path)


def entries_of(method: MethodView) -> tuple[list[Entry], list[ConfigFault]]:
    """A recipe's parts in the order in which they work, and what is wrong with their layers.

    Advantages and loss come before plug-ins, the importance correction behind them.
    """
    slots, faults = slot_entries(method), []
    entries = [one for one in slots if one.kind != "IMPORTANCE"]
    for index, entry in enumerate(method.plugins):
        try:
            entries.append(plugin_entry(entry, method.layers, index))
        except ConfigError as error:
            faults += error.faults
    return entries + [one for one in slots if one.kind == "IMPORTANCE"], faults


def find_plugin(name: str, kind: Kind | None = None) -> type[Plugin]:
    """The class that a name in a recipe stands for.

    Args:
        kind: of the place where the recipe has the name; None: any.

    Raises:
        ValueError: there is none, with what to do.
    """
    kinds = list(HOMES) if kind is None else [kind]
    home = next((one for one in kinds if name in declared(one)), None)
    module_name, colon, attribute = name.partition(":")
    if home is None and not colon:
        ours = [known for one in kinds for known in declared(one)]
        raise ValueError(f"is not a plug-in. {elsewhere(name) or choices(name, ours)}")
    try:
        found = load(home, name) if home else getattr(import_own(module_name), attribute)
    except Exception as error:  # a user's module raises what it likes when it is imported
        raise ValueError(f"cannot be imported: {type(error).__name__}: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, Plugin)):
        raise ValueError(
            "is not a class that derives from LearnerPlugin, RolloutPlugin, SourcePlugin or "
            "SamplerPlugin."
        )
    if found.kind not in kinds:
        raise ValueError(f"belongs to {HOMES[found.kind]}, as its class says.")
    return found


def layer_numbers(entry: PluginConfig, chain: Sequence[LayerConfig]) -> frozenset[int]:
    """The layers that an entry works on, 1 for the first.

    Raises:
        ValueError: a name is no layer's, or there is none.
    """
    names = [layer.name for layer in chain]
    if entry.layers is None:
        return frozenset(range(1, len(names) + 1))
    if not entry.layers:
        raise ValueError("is empty. Omit `layers` to apply the plug-in to every layer.")
    unknown = [name for name in entry.layers if name not in names]
    if unknown:
        raise ValueError(f"there is no layer {unknown[0]!r}. Layers: {', '.join(names)}.")
    return frozenset(names.index(name) + 1 for name in entry.layers)


def make_plugin(entry: Entry, method: MethodView) -> Plugin:
    """One plug-in, validated.

    Raises:
        ConfigError: with every fault of the entry.
    """
    try:
        kind = find_plugin(entry.name, entry.kind)
    except ValueError as error:
        raise ConfigError([ConfigFault(entry.name_path, entry.name, str(error))]) from error
    try:
        settings = kind.Settings.model_validate(dict(entry.settings))
    except ValidationError as error:
        faults = explain(error, kind.Settings)
    else:
        faults = missing_parts(entry.name, kind.needed(settings), method)
        faults += kind.faults(settings, entry.layers, method)
        faults += faults_of_phases(kind, settings, entry.layers, method, known=faults)
        faults += changed_settings(kind, settings, entry, method)
        if not faults:
            return kind(settings, entry.layers)
    raise ConfigError([replace(one, path=recipe_path(one.path, entry)) for one in faults])


def names_in(method: MethodView) -> set[str]:
    """Names of all parts that a recipe has, in slots and in `plugins`."""
    return {one.name for one in slot_entries(method)} | {one.use for one in method.plugins}


def has_one_of(method: MethodView, wanted: Sequence[str]) -> bool:
    """A user's own part may be any."""
    return any(name in wanted or ":" in name for name in names_in(method))


def missing_parts(own: str, needs: Sequence[str], method: MethodView) -> list[ConfigFault]:
    """The fault of a part without any of those that it needs."""
    if not needs or has_one_of(method, needs):
        return []
    hint = " or ".join(f"{name} to {home_of(name)}" for name in needs)
    why = "needs another part of the recipe, which is not there."
    return [ConfigFault("(plug-in)", own, why, f"Add {hint}.")]


def faults_of_phases(
    kind: type[Plugin],
    settings: object,
    layers: frozenset[int],
    method: MethodView,
    *,
    known: Sequence[ConfigFault],
) -> list[ConfigFault]:
    """Errors of a plug-in in the recipe's phases, besides the `known` ones."""
    found: list[ConfigFault] = []
    for phase, values in method.phases:
        found += [
            replace(one, reason=f"in phase {phase.name!r} {one.reason}")
            for one in kind.faults(settings, layers, method.always_with(values))
            if one not in known
        ]
    return found


def changed_settings(
    kind: type[Plugin], settings: StrictConfig, entry: Entry, method: MethodView
) -> Iterator[ConfigFault]:
    """Settings that the recipe's phases change and must not, or change wrongly."""
    for index, (_, values) in enumerate(method.phases):
        path = f"phases.{index}.changes.{entry.settings_path}"
        for changed in slot_entries(method.always_with(values)):
            if changed.path != entry.path or changed.settings == entry.settings:
                continue
            try:
                now = kind.Settings.model_validate(dict(changed.settings))
            except ValidationError as error:
                for one in explain(error, kind.Settings):
                    yield replace(one, path=f"({path}.{one.path})")
                continue
            for key in kind.Settings.model_fields:
                value = getattr(now, key)
                if value != getattr(settings, key) and key not in kind.may_change:
                    why = f"cannot change during a run: {entry.name} is made at the start."
                    yield ConfigFault(f"({path}.{key})", str(value), why)


def resume_rules(method: MethodView) -> dict[str, OnResume]:
    """What a resumed run may do to the settings of a recipe's parts, by path."""
    rules: dict[str, OnResume] = {}
    for entry in entries_of(method)[0]:
        try:
            kind = find_plugin(entry.name, entry.kind)
        except ValueError:
            continue  # reported where that part is made
        rules |= {f"{entry.settings_path}.{key}": rule for key, rule in kind.on_resume.items()}
    return rules


def recipe_path(path: str, entry: Entry) -> str:
    """Where in the recipe a fault of an entry is: a path in brackets is the recipe's own,
    "(plug-in)" the entry itself, and any other one of its settings."""
    if path == "(plug-in)":
        return entry.name_path
    if path.startswith("("):
        return path.strip("()")
    return f"{entry.settings_path}.{path}"


def load_plugins(method: MethodView, kind: type[AnyPlugin]) -> list[AnyPlugin]:
    """The recipe's plug-ins of one kind, in the order in which they work.

    Raises:
        ConfigError: with every fault of every entry.
    """
    entries, faults = entries_of(method)
    made: list[AnyPlugin] = []
    for entry in entries:
        try:
            plugin = make_plugin(entry, method)
        except ConfigError as error:
            faults += error.faults
            continue
        if isinstance(plugin, kind):
            made.append(plugin)
    if faults:
        raise ConfigError(faults)
    return made
