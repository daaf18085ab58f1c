"""Changes to a recipe before it is validated: `a.b=value` on the command line, and `extends`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import yaml

from mgrpo.config.slots import as_section
from mgrpo.config.yaml_core import MAX_LEVELS, parse_yaml
from mgrpo.errors import ConfigFault
from mgrpo.records.json_object import JsonObject
from mgrpo.records.secret_values import STORAGE_OPTIONS, redacted_value

NAME_KEYS = ("name", "check", "use")  # what an entry of a list may be called by, like its index


class BadOverride(ValueError):
    """An override that cannot be applied; carries the fault for the message."""

    def __init__(self, path: str, value: str, reason: str, suggestion: str = "") -> None:
        self.fault = ConfigFault(path, value, reason, suggestion)
        super().__init__(str(self.fault))


def apply_override(tree: JsonObject, override: str) -> None:
    """Set one key of the recipe's tree, in place.

    `layers.1.group_size=4`, `layers.correct.group_size=4`, `data.train.size=100`. The value is
    YAML: a number, a word, a list in brackets. Missing sections on the path are made.
    """
    path, equals, text = override.partition("=")
    if not equals or not path:
        hint = "Example: layers.correct.group_size=4"
        shown = redacted_value(STORAGE_OPTIONS, override)
        raise BadOverride(shown, "(none)", "an override is key=value.", hint)
    shown = redacted_value(path, text)
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        reason = f": {one_line(error)}" if shown == text else ""
        raise BadOverride(path, shown, f"the value is not YAML{reason}.") from error
    try:
        override.encode()
    except UnicodeEncodeError as error:
        readable = f"{path}={shown}".encode(errors="backslashreplace").decode()
        raise BadOverride(readable, "(bytes)", "it is not UTF-8 text.") from error
    *parents, last = path.split(".")
    if len(parents) >= MAX_LEVELS:
        raise BadOverride(f"{path[:60]}...", shown, f"no key is inside {len(parents)} others.")
    node: object = tree
    for depth, part in enumerate(parents):
        node = step_into(node, part, path=".".join(parents[: depth + 1]), value=shown)
    if isinstance(node, list):
        node[list_index(node, last, path=path, value=shown)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise BadOverride(path, shown, f"{'.'.join(parents)} is {node!r}, not a section.")


def step_into(node: object, part: str, *, path: str, value: str) -> object:
    if isinstance(node, list):
        return node[list_index(node, part, path=path, value=value)]
    if isinstance(node, dict):
        node[part] = as_section(part, node.get(part))
        return node[part]
    raise BadOverride(path, value, f"{node!r} is not a section, so it has no key {part!r}.")


def list_index(entries: list[object], part: str, *, path: str, value: str) -> int:
    """The place of an entry by number or by name."""
    names = [entry_name(entry) for entry in entries]
    if part in names:
        return names.index(part)
    if part in (places := [str(place) for place in range(len(entries))]):
        return places.index(part)
    named = [name for name in names if name is not None]
    choices = f" or {', '.join(named)}" if named else ""
    last = len(entries) - 1
    valid = f"0 to {last}{choices}" if last >= 0 else "none: the list is empty"
    raise BadOverride(path, value, f"the list has no entry {part!r}.", f"Valid: {valid}.")


def entry_name(entry: object) -> str | None:
    if not isinstance(entry, dict):
        return None
    return next((str(entry[key]) for key in NAME_KEYS if key in entry), None)


def merged(base: Any, changes: Any, path: str = "") -> Any:
    """`base` with the changes of a recipe that extends it.

    Sections merge key by key; all else is replaced. A list of named entries may be changed by a
    map from names to changes: `layers: {correct: {group_size: 8}}`. A section of another kind is
    replaced whole, since its keys are that kind's.
    """
    if isinstance(base, list) and isinstance(changes, dict):
        entries = copy.deepcopy(base)
        for name, change in changes.items():
            where = f"{path}.{name}"
            index = list_index(entries, str(name), path=where, value=str(change))
            entries[index] = merged(entries[index], change, where)
        return entries
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return copy.deepcopy(changes)
    if path and is_other_kind(base, changes):  # the recipe itself is no kind of anything
        return copy.deepcopy(changes)
    result = dict(base)
    for key, change in changes.items():
        where = f"{path}.{key}" if path else str(key)
        if key in base and isinstance(change, dict):
            result[key] = merged(as_section(key, base[key]), change, where)
        else:
            result[key] = copy.deepcopy(change)
    return result


def is_other_kind(base: JsonObject, changes: JsonObject) -> bool:
    """Whether a section's changes are of another kind than the section.

    The `type` of a slot tells, of data its `source` and `format`; rows need no `source`, and are
    told from generated problems by their `path`.
    """
    if any(
        tag in changes and changes[tag] != base.get(tag) for tag in ("source", "format", "type")
    ):
        return True
    return "path" in changes and "path" not in base and "source" in base


def nested(changes: Mapping[str, Any]) -> JsonObject:
    """Changes by dotted key as the map that a recipe which extends another has.

    {"layers.correct.group_size": 8, "steps": 20} gives {"layers": {"correct": {"group_size": 8}},
    "steps": 20}.
    """
    tree: JsonObject = {}
    for path, value in changes.items():
        for key in reversed(path.split(".")):
            value = {key: value}
        tree = merged_maps(tree, value)
    return tree


def merged_maps(base: JsonObject, changes: JsonObject) -> JsonObject:
    """Both maps in one, of any depth; where both have a value, that of `changes`."""
    both = {
        key: merged_maps(base[key], changes[key])
        for key in base.keys() & changes.keys()
        if isinstance(base[key], dict) and isinstance(changes[key], dict)
    }
    return {**base, **changes, **both}


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
