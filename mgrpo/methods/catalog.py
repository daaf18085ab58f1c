"""The description of every method, from its recipe and its plug-ins' classes.

A method is a folder under mgrpo/methods/ with a recipe: its chain of layers, the keys that differ
from their defaults (which are plain GRPO's), its plug-ins and its phases. Nothing is written down
twice.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mgrpo.config import LayerConfig, MethodView, PhaseConfig, RunConfig
from mgrpo.config.explain import meaning
from mgrpo.config.load import load_recipe, shipped_recipes
from mgrpo.config.parts import HOMES
from mgrpo.config.recipe_file import read_tree
from mgrpo.errors import ConfigError
from mgrpo.plugin import Plugin, find_plugin, load_plugins, slot_entries
from mgrpo.records.json_object import JsonObject
from mgrpo.registry import Kind, declared

OWN_FOLDER = Path("recipes") / "methods"
"""The folder of the user's own methods, relative to the current folder."""
SHIPPED_PREFIX = "methods/"
SECTIONS = ("sampling", "rewards", "objective")
"""Sections that make a method, besides its layers, plug-ins and phases."""
KEYS_OF_THE_MODEL = ("max_completion_tokens", "num_engines", "system_prompt", "user_template")
"""Keys of a layer that suit it to a model and its data; they tell no method from another."""
GROUPS = {
    "plain": "The plain method, which all others change",
    "chain": "Corrections: chains of several layers",
    "problems": "Problems and completions of a step",
    "rewards": "Rewards",
    "advantages": "Advantages",
    "losses": "Losses and averages over tokens",
}
"""What a list of methods is divided into: by the first of these that a method changes."""
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key with what it is set to."""

    path: str
    value: Any
    default: Any
    meaning: str  # its docstring
    is_required: bool = False  # there is no default


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginFacts:
    """A plug-in, as its class has it, and what a recipe sets."""

    use: str
    kind: Kind = "PLUGINS"  # PLUGINS: an entry of `plugins`; else what fills a slot
    doc: str = ""
    hooks: list[str] = field(default_factory=list)  # that the class overrides
    requires: list[str] = field(default_factory=list)  # what the learner measures for it
    settings: list[Key] = field(default_factory=list)
    layers: list[str] | None = None  # None: all
    fault: str = ""  # why it cannot be loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodFacts:
    """A method."""

    id: str
    recipe: str  # file
    comment: str = ""  # that the recipe opens with
    name: str = ""
    paper: str = ""
    changes: str = ""  # one sentence: the comment's first
    chain: list[str] = field(default_factory=list)
    differences: list[Key] = field(default_factory=list)  # from the keys' defaults
    training: list[Key] = field(default_factory=list)  # further keys that its own file sets
    plugins: list[PluginFacts] = field(default_factory=list)
    phases: list[JsonObject] = field(default_factory=list)
    seams: dict[str, list[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)  # what keeps it from training here


def group_of(method: MethodFacts) -> str:
    """The method's entry of GROUPS."""
    hooks = {hook for plugin in method.plugins for hook in plugin.hooks}
    if len(method.chain) > 1:
        return "chain"
    if any(plugin.kind in ("SOURCES", "SAMPLERS") for plugin in method.plugins):
        return "problems"
    if "shape_rewards" in hooks:
        return "rewards"
    if "importance" in method.seams.get("objective", ()):
        return "losses"
    if hooks & {"estimate_advantages", "transform_advantages", "filter_rows"}:
        return "advantages"
    return "losses" if method.seams else "plain"


def method_files() -> dict[str, Path]:
    """Recipe file by method: the shipped ones, and those of the working folder in their place."""
    shipped = {
        name.removeprefix(SHIPPED_PREFIX): file
        for name, file in shipped_recipes().items()
        if name.startswith(SHIPPED_PREFIX)
    }
    own = {file.stem: file for file in OWN_FOLDER.glob("*.yaml")}
    return dict(sorted({**shipped, **own}.items()))


def all_methods() -> list[MethodFacts]:
    return [method_facts(file, name) for name, file in method_files().items()]


def unused_plugins(methods: Sequence[MethodFacts]) -> list[PluginFacts]:
    """Plug-ins of ours that no method uses."""
    used = {plugin.use for method in methods for plugin in method.plugins}
    return [
        plugin_facts(name, kind) for kind in HOMES for name in declared(kind) if name not in used
    ]


def method_facts(file: Path, name: str) -> MethodFacts:
    """All that a recipe says, also where something of it cannot be used."""
    comment = leading_comment(file.read_text(encoding="utf-8", errors="replace"))
    try:
        config = load_recipe(file)
    except ConfigError as error:
        return MethodFacts(id=name, recipe=shown_path(file), comment=comment, faults=[str(error)])
    plugins = parts_of(config.method_view)
    found = list(differences(config))
    return MethodFacts(
        id=name,
        recipe=shown_path(file),
        comment=comment,
        name=config.method,
        paper=config.paper,
        changes=first_sentence(comment, config.method) or config.description,
        chain=[layer_words(layer, depth) for depth, layer in enumerate(config.layers)],
        differences=found,
        training=list(training_keys(file, config)),
        plugins=plugins,
        phases=[phase.model_dump(mode="json") for phase in config.phases],
        seams=seams(config.layers, config.phases, found, plugins),
        faults=plugin_faults(config.method_view),
    )


def leading_comment(text: str) -> str:
    """The comment that a YAML file opens with, without its signs."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].removeprefix(" "))
    return "\n".join(lines)


def first_sentence(comment: str, method: str) -> str:
    """The first sentence, without "METHOD: " before it; indented lines are commands."""
    prose = " ".join(line for line in comment.splitlines() if line[:1] != " ")
    return SENTENCE_END.split(prose.removeprefix(f"{method}: "), maxsplit=1)[0]


def layer_words(layer: LayerConfig, depth: int) -> str:
    per = "problem" if depth == 0 else "parent"
    return (
        f"{layer.name}: {layer.group_size} per {per}, at most {layer.max_completion_tokens} tokens"
    )


def differences(config: RunConfig) -> Iterator[Key]:
    """Keys that make the method and are not what they are by default."""
    for layer in config.layers:
        for key in changed_keys(layer, f"layers.{layer.name}."):
            if key.path.rsplit(".", 1)[-1] not in KEYS_OF_THE_MODEL:
                yield key
    for key in changed_keys(config, ""):
        if key.path == "source":
            yield key
    for section in SECTIONS:
        yield from changed_keys(getattr(config, section), f"{section}.")


def changed_keys(section: BaseModel, prefix: str) -> Iterator[Key]:
    """Keys with another value than their default; those without a default are left out."""
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if info.is_required() or value == default_of(info):
            continue
        if isinstance(value, type(default_of(info))) and isinstance(value, BaseModel):
            yield from changed_keys(value, f"{prefix}{name}.")
            continue
        yield Key(
            path=prefix + name,
            value=plain(value),
            default=plain(default_of(info)),
            meaning=meaning(info),
        )


def default_of(info: FieldInfo) -> object:
    return info.get_default(call_default_factory=True, validated_data={})


def plain(value: object) -> Any:
    """A value as JSON has it; a slot without its defaults, by its name alone where that is all."""
    if isinstance(value, BaseModel) and "type" in type(value).model_fields:
        changes = value.model_dump(mode="json", exclude_defaults=True)
        name = value.model_dump()["type"]
        return {"type": name, **changes} if changes else name
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def training_keys(file: Path, config: RunConfig) -> Iterator[Key]:
    """Keys of the method's recipe in other sections, such as its learning rate."""
    tree = read_tree(file)
    for section, changes in tree.items():
        values = getattr(config, section, None)
        if section in (*SECTIONS, "source") or not (
            isinstance(values, BaseModel) and isinstance(changes, dict)
        ):
            continue
        for name in changes:
            info = type(values).model_fields[name]
            default = None if info.is_required() else default_of(info)
            yield Key(
                path=f"{section}.{name}",
                value=plain(getattr(values, name)),
                default=plain(default),
                meaning=meaning(info),
            )


def parts_of(method: MethodView) -> list[PluginFacts]:
    """What fills the recipe's slots, if it is a method's own, and the entries of `plugins`."""
    slots = [plugin_facts(one.name, one.kind, one.settings) for one in slot_entries(method)]
    entries = [
        plugin_facts(entry.use, "PLUGINS", entry.settings, entry.layers) for entry in method.plugins
    ]
    return slots + entries


def plugin_facts(
    use: str,
    kind: Kind | None = None,
    given: Mapping[str, object] = MappingProxyType({}),
    layers: list[str] | None = None,
) -> PluginFacts:
    """What a plug-in's class says of itself, with the settings that a recipe gives."""
    try:
        found = find_plugin(use, kind)
    except ValueError as error:
        return PluginFacts(use=use, layers=layers, fault=f"{use} {error}")
    settings = [
        Key(
            path=name,
            value=given.get(name, None if info.is_required() else plain(default_of(info))),
            default=None if info.is_required() else plain(default_of(info)),
            meaning=meaning(info),
            is_required=info.is_required(),
        )
        for name, info in found.Settings.model_fields.items()
    ]
    return PluginFacts(
        use=use,
        kind=found.kind,
        doc=inspect.cleandoc(found.__doc__ or ""),
        hooks=hooks_of(found),
        requires=sorted(getattr(found, "requires", ())),
        settings=settings,
        layers=layers,
    )


def hooks_of(kind: type[Plugin]) -> list[str]:
    """The hooks that a class has of its own, in the order in which they are called."""
    from actors.plugin import RolloutPlugin
    from learner.plugin import AdvantageEstimator, LearnerPlugin, PolicyLoss  # it imports torch
    from mgrpo.training.sources.source import Source

    bases = (RolloutPlugin, LearnerPlugin, AdvantageEstimator, PolicyLoss)
    return [
        name
        for base in (*bases, Source)
        if issubclass(kind, base)
        for name, value in vars(base).items()
        if inspect.isfunction(value) and not name.startswith("_") and kind.overrides(name, base)
        if not name.endswith("state_dict")  # what a plug-in remembers is no step of learning
    ]


def seams(
    layers: Sequence[LayerConfig],
    phases: Sequence[PhaseConfig],
    found: Sequence[Key],
    plugins: Sequence[PluginFacts],
) -> dict[str, list[str]]:
    """The parts of the chain, the objective, plug-ins and phases that the method changes."""
    places: dict[str, list[str]] = {}
    if len(layers) > 1:
        places["chain"] = [layer.name for layer in layers]
    for key in found:
        section, _, rest = key.path.partition(".")
        name = rest.partition(".")[2] if section == "layers" else rest
        if name not in places.setdefault(section, []):
            places[section].append(name)
    if plugins:
        places["plugins"] = [f"{one.use} ({', '.join(one.hooks)})" for one in plugins]
    if phases:
        places["phases"] = [f"{one.name} (from step {one.from_step})" for one in phases]
    return places


def plugin_faults(method: MethodView) -> list[str]:
    """What keeps the recipe's plug-ins from working here, e.g. a model that is not trained yet."""
    try:
        load_plugins(method, Plugin)
    except ConfigError as error:
        return [str(fault) for fault in error.faults]
    return []


def shown_path(file: Path) -> str:
    """As short as it can be from here."""
    path = file.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
