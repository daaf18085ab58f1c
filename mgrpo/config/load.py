"""Recipes: found by name or path, read, changed by overrides, checked, and written back.

    config = load_recipe("quickstart", ["layers.correct.group_size=4", "steps=10"])

A recipe may start from another: `extends: quickstart`, or `extends: my_base.yaml` beside it.
"""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from mgrpo.config.explain import explain
from mgrpo.config.no_secrets import refuse_secrets
from mgrpo.config.overrides import BadOverride, apply_override, merged
from mgrpo.config.own_code import found_beside
from mgrpo.config.recipe_file import read_tree, recipe_error
from mgrpo.config.rewards import FUNCTION_KINDS
from mgrpo.config.run import RunConfig
from mgrpo.config.slots import as_section
from mgrpo.config.translate import new_name
from mgrpo.config.yaml_core import dump_yaml
from mgrpo.errors import ConfigError, ConfigFault
from mgrpo.records.json_object import JsonObject

PACKAGE = Path(__file__).resolve().parents[1]
SUFFIXES = (".yaml", ".yml")
RENAMED = {"paper_literal": "success_only"}
"""Shipped recipes by the names that they had, so that whoever remembers one is told the new one."""


def load_recipe(
    recipe: str | Path | Mapping[str, object],
    overrides: Sequence[str] = (),
    *,
    changes: Mapping[str, object] = MappingProxyType({}),
) -> RunConfig:
    """The recipe with the changes and then the overrides applied, validated.

    Args:
        recipe: a file, the name of a shipped recipe ("quickstart", "igrpo"), or what such a file
            holds.
        overrides: "a.b=value" each; a layer may be called by its name.
        changes: what a recipe that extends this one would hold.

    Raises:
        ConfigError: lists all errors, with path, value, reason and a valid alternative. Where the
            recipe holds secrets, those alone, and without their values.
    """
    bad = []
    if isinstance(recipe, Mapping):
        source, folder = "the recipe", Path()
        tree = extended(copy.deepcopy(dict(recipe)), folder, source)
    else:
        file = find_recipe(recipe)
        source, folder = str(file), file.parent
        tree = read_recipe(file)
    try:
        tree = merged(tree, dict(changes))
    except BadOverride as error:
        bad.append(error.fault)
    for override in overrides:
        try:
            apply_override(tree, override)
        except BadOverride as error:
            bad.append(error.fault)
    refuse_secrets(tree, source)
    faults = list(bad)
    find_own_code(tree, folder)
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        faults += [with_new_name(one) for one in explain(error, RunConfig)]
    faults = faults or list(not_finite(tree))
    if faults:
        raise ConfigError(faults, source=source)
    return config


def with_new_name(fault: ConfigFault) -> ConfigFault:
    """The fault of a key that has moved, with where it is now."""
    now = new_name(fault.path, fault.value)
    if not now:
        return fault
    hint = f"It is {now} now; python -m mgrpo.config.translate RECIPE.yaml rewrites a recipe."
    return replace(fault, reason="this key has moved.", suggestion=hint)


def not_finite(value: object, path: str = "") -> Iterator[ConfigFault]:
    """Infinite numbers and NaN, wherever a recipe holds them: JSON and its readers have none."""
    if isinstance(value, Mapping):
        pairs: Iterable[tuple[object, object]] = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    else:
        if isinstance(value, float) and not math.isfinite(value):
            reason = "this is no finite number."
            yield ConfigFault(path, str(value), reason, "Give a large one, or leave the key out.")
        return
    for key, inner in pairs:
        yield from not_finite(inner, f"{path}.{key}" if path else str(key))


def find_own_code(tree: JsonObject, folder: Path) -> None:
    """Name the user's own code by path, where it lies beside the recipe only."""
    rewards = tree.get("rewards")
    terms = rewards.get("terms") if isinstance(rewards, dict) else None
    for entries, keys in ((terms, FUNCTION_KINDS), (tree.get("plugins"), ("use",))):
        for entry in entries if isinstance(entries, list) else ():
            for key in keys if isinstance(entry, dict) else ():
                if isinstance(entry.get(key), str):
                    entry[key] = found_beside(entry[key], folder)
    layers = tree.get("layers")
    sections = [tree, tree.get("objective"), tree.get("data")]
    for section in [*sections, *(layers if isinstance(layers, list) else ())]:
        find_parts(section, folder)


def find_parts(section: object, folder: Path) -> None:
    """`find_own_code` for what fills the slots of one section."""
    if not isinstance(section, dict):
        return
    for slot in ("advantage", "loss", "importance", "sampler", "source", "above"):
        held = as_section(slot, section.get(slot))
        if isinstance(held, dict) and isinstance(held.get("type"), str):
            section[slot] = {**held, "type": found_beside(held["type"], folder)}
            find_parts(section[slot], folder)


def save_recipe(config: RunConfig, path: str | Path) -> None:
    """Write the resolved recipe, every default included; `load_recipe` reads it back equal.

    It replaces what is there whole: a run that is killed as it starts again still has its recipe.
    """
    unfinished = Path(path).with_suffix(".unfinished")
    unfinished.write_text(dump_yaml(config.model_dump(mode="json")), encoding="utf-8")
    unfinished.replace(path)


def find_recipe(name: str | Path, beside: Path | None = None) -> Path:
    """The file that a recipe's name or path stands for.

    A path with a suffix is a file: beside the recipe that extends it, or from the working folder.
    A name is looked for in the working folder and its recipes/, then among the shipped recipes; in
    `extends` among the shipped ones alone, so that no file of the working folder changes them.
    """
    given = expanded(name)
    shipped = shipped_recipes()
    if not given.name:
        raise recipe_error(str(name) or '""', "this names no recipe.", "mgrpo methods lists names.")
    if given.suffix in SUFFIXES:
        candidates = [folder / given for folder in (beside, Path()) if folder is not None]
    elif beside is None:
        file = given.with_name(f"{given.name}.yaml")
        candidates = [file, given, Path("recipes") / file]
    else:
        candidates = []
    for candidate in candidates:
        if is_file(candidate):
            return candidate
    plain = given.with_suffix("") if given.suffix in SUFFIXES else given
    for shipped_name in (plain.as_posix(), f"methods/{plain}"):
        if shipped_name in shipped:
            return shipped[shipped_name]
    raise recipe_error(str(name), *unknown_recipe(plain, shipped))


def expanded(name: str | Path) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError as error:  # "~nobody"
        raise recipe_error(str(name), "there is no home folder of this user.") from error


def is_file(path: Path) -> bool:
    """False also where the system has no such names."""
    try:
        return path.is_file()
    except OSError:
        return False


def shipped_recipes() -> dict[str, Path]:
    """The recipes inside the package by name: "quickstart", "methods/igrpo"."""
    files = {file.stem: file for file in (PACKAGE / "recipes").glob("*.yaml")}
    for file in (PACKAGE / "methods").glob("*/recipe.yaml"):
        files[f"methods/{file.parent.name}"] = file
    return dict(sorted(files.items()))


def unknown_recipe(name: Path, shipped: Mapping[str, Path]) -> tuple[str, str]:
    """(reason, suggestion) for a name that stands for no recipe."""
    now = name.with_name(RENAMED.get(name.name, name.name))
    for path in (now, Path(now.parent.name) / now.name, Path(now.name)):  # recipes/... of before
        if path.as_posix() in shipped:
            return "was renamed.", f"Use {path}."
    own = [file.relative_to("recipes") for file in Path("recipes").rglob("*.yaml")]
    available = sorted({*shipped, *(file.with_suffix("").as_posix() for file in own)})
    if near := difflib.get_close_matches(name.name, available, n=3, cutoff=0.4):
        return "no such recipe.", f"Did you mean {' or '.join(near)}?"
    usual = [one for one in available if not one.startswith("methods/")]
    advice = (
        f"Recipes here: {', '.join(usual)}; mgrpo methods lists those of methods. Or give a file."
    )
    return "no such recipe.", advice


def read_recipe(file: Path, seen: tuple[Path, ...] = ()) -> JsonObject:
    """A recipe's tree of values, with the recipe that it extends underneath."""
    return extended(read_tree(file), file.parent, str(file), (*seen, file.resolve()))


def extended(
    tree: JsonObject, folder: Path, source: str, seen: tuple[Path, ...] = ()
) -> JsonObject:
    """A recipe's tree with the recipe that it extends underneath.

    Args:
        folder: the recipe's, in which the other one is looked for first.
        source: what messages call it.
        seen: the files that led here.
    """
    refuse_secrets(tree, source)
    if "extends" not in tree:
        return tree
    base_file = find_recipe(str(tree.pop("extends")), beside=folder)
    if base_file.resolve() in seen:
        raise recipe_error(source, f"extends itself by way of {base_file}.", "", key="extends")
    try:
        changed: JsonObject = merged(read_recipe(base_file, seen), tree)
    except BadOverride as error:
        raise ConfigError([error.fault], source=source) from error
    return changed
