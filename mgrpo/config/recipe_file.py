"""A recipe's file, read as plain values."""

from __future__ import annotations

from pathlib import Path

import yaml

from mgrpo.config.explain import shortened
from mgrpo.config.overrides import one_line
from mgrpo.config.yaml_core import parse_yaml
from mgrpo.errors import ConfigError, ConfigFault
from mgrpo.records.json_object import JsonObject
from mgrpo.records.secret_values import STORAGE_OPTIONS, redacted_value

PACKAGE = Path(__file__).resolve().parents[1]


def read_tree(file: Path) -> JsonObject:
    """The map that a YAML file holds.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise recipe_error(str(file), f"cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise recipe_error(str(file), "is not UTF-8 text.") from error
    try:
        tree: object = parse_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        reason = f": {error.problem}" if mark is None or is_public(text, mark.line) else ""
        raise recipe_error(f"{file}{where}", f"is not YAML{reason}.") from error
    except yaml.YAMLError as error:
        raise recipe_error(str(file), f"is not YAML: {one_line(error)}.") from error
    if not isinstance(tree, dict):
        raise recipe_error(
            str(file),
            f"must be a map of sections, but holds {shortened(tree)}.",
            f"See {PACKAGE / 'recipes' / 'quickstart.yaml'} for the form.",
        )
    return tree


def is_public(text: str, line: int) -> bool:
    """Whether a message may quote from this line, counted from 0: it may hold no secret."""
    shown = "".join(text.splitlines()[line : line + 1])
    return redacted_value(STORAGE_OPTIONS, shown) == shown


def recipe_error(value: str, reason: str, suggestion: str = "", key: str = "recipe") -> ConfigError:
    return ConfigError([ConfigFault(key, value, reason, suggestion)])
