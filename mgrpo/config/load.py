"""Recipes: found by name or path, read, changed by overrides, checked, and written back.

    config = load_recipe("quickstart", ["layers.correct.group_size=4", "steps=10"])

A recipe may start from another: `extends: quickstart.yaml`, looked for beside it first.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mgrpo.config.explain import explain, shortened
from mgrpo.config.overrides import BadOverride, Tree, apply_override, merged, one_line
from mgrpo.config.relations import warnings_of
from mgrpo.config.run import RunConfig
from mgrpo.config.yaml_core import dump_yaml, parse_yaml
from mgrpo.errors import ConfigError, ConfigProblem
from mgrpo.own_code import found_beside

__all__ = ["find_recipe", "load_recipe", "save_recipe", "warnings_of"]

REPOSITORY = Path(__file__).resolve().parents[2]
SUFFIXES = (".yaml", ".yml")
RENAMED = {"paper_literal": "success_only"}
"""Shipped recipes by the names that they had, so that whoever remembers one is told the new one."""


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The recipe at `path` with the overrides applied, validated.

    Args:
        path: a file, or the name of one under recipes/ ("quickstart", "methods/igrpo").
        overrides: "a.b=value" each; a layer may be called by its name.

    Raises:
        ConfigError: lists everything that is wrong, with the path, the value, the reason and
            what would do.
    """
    file = find_recipe(path)
    tree = read_recipe(file)
    bad = []
    for override in overrides:
        try:
            apply_override(tree, override)
        except BadOverride as error:
            bad.append(error.problem)
    problems = list(bad)
    find_own_code(tree, file.parent)
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        problems += explain(error, RunConfig)
    if problems:
        raise ConfigError(problems, source=str(file))
    return config


def find_own_code(tree: Tree, folder: Path) -> None:
    """Name the user's checks and plug-ins by path, where they lie beside the recipe only."""
    rewards = tree.get("rewards")
    terms = rewards.get("terms") if isinstance(rewards, dict) else None
    for entries, key in ((terms, "check"), (tree.get("plugins"), "use")):
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get(key), str):
                entry[key] = found_beside(entry[key], folder)


def save_recipe(config: RunConfig, path: str | Path) -> None:
    """Write the resolved recipe, every default included; `load_recipe` reads it back equal."""
    Path(path).write_text(dump_yaml(config.model_dump(mode="json")), encoding="utf-8")


def find_recipe(name: str | Path, beside: Path | None = None) -> Path:
    """The file that a recipe's name or path stands for.

    Looked for as it is (beside the recipe that extends it, then from here), then under recipes/
    here, then under recipes/ of the repository that this program runs from.
    """
    given = Path(name).expanduser()
    roots = [root for root in (beside, Path()) if root is not None]
    folders = [Path("recipes"), REPOSITORY / "recipes"]
    names = [given] if given.suffix in SUFFIXES else [given.with_name(f"{given.name}.yaml"), given]
    for folder in [*roots, *folders]:
        for candidate in names:
            if (folder / candidate).is_file():
                return folder / candidate
    available = sorted(
        {
            found.relative_to(folder).with_suffix("").as_posix()
            for folder in folders
            for found in folder.rglob("*.yaml")
        }
    )
    now = RENAMED.get(given.stem)
    if now is not None:
        raise recipe_error(str(name), "has another name now.", f"Use {given.with_name(now)}.")
    near = difflib.get_close_matches(given.stem, available, n=3, cutoff=0.4) or available
    raise recipe_error(
        str(name), "no such recipe.", f"Recipes here: {', '.join(near) or 'none'}. Or give a file."
    )


def read_recipe(file: Path, seen: tuple[Path, ...] = ()) -> Tree:
    """A recipe's tree of values, with the recipe that it extends underneath."""
    tree = read_tree(file)
    if "extends" not in tree:
        return tree
    seen = (*seen, file.resolve())
    base_file = find_recipe(str(tree.pop("extends")), beside=file.parent)
    if base_file.resolve() in seen:
        raise recipe_error(str(file), f"extends itself by way of {base_file}.", "", key="extends")
    try:
        changed: Tree = merged(read_recipe(base_file, seen), tree)
    except BadOverride as error:
        raise ConfigError([error.problem], source=str(file)) from error
    return changed


def read_tree(file: Path) -> Tree:
    """The map that a YAML file holds."""
    try:
        tree: Any = parse_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise recipe_error(str(file), f"cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise recipe_error(str(file), "is not UTF-8 text.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise recipe_error(f"{file}{where}", f"is not YAML: {error.problem}.") from error
    except yaml.YAMLError as error:
        raise recipe_error(str(file), f"is not YAML: {one_line(error)}.") from error
    if not isinstance(tree, dict):
        raise recipe_error(
            str(file),
            f"must be a map of sections, but holds {shortened(tree)}.",
            "See recipes/quickstart.yaml for the form.",
        )
    return tree


def recipe_error(value: str, reason: str, suggestion: str = "", key: str = "recipe") -> ConfigError:
    return ConfigError([ConfigProblem(key, value, reason, suggestion)])
