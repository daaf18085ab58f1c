"""Every key of a recipe with its values, default and meaning, from the configuration's schema."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mgrpo.config.run import RunConfig
from mgrpo.records.json_object import JsonObject

WORDS = {
    "array": "list",
    "boolean": "true or false",
    "integer": "whole number",
    "null": "null",
    "number": "number",
    "object": "mapping",
    "string": "text",
}
BOUNDS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
    "minItems": "length ≥",
    "maxItems": "length ≤",
    "pattern": "matches",
}
LONGEST_DEFAULT = 60  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section of a recipe, where it occurs first."""

    path: str  # "" for the recipe; N stands for a place in a list
    name: str
    meaning: str
    keys: list[KeyFacts]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFacts:
    """A key of a section."""

    name: str
    spec: JsonObject  # its part of the schema
    default: str  # as JSON; "needed"; or "" for sections and long ones
    meaning: str


def all_sections() -> Iterator[Section]:
    """The sections from the outermost inwards, each once."""
    schema = RunConfig.model_json_schema()
    sections = schema["$defs"]
    waiting, met = deque([("", "RunConfig", schema)]), {"RunConfig"}
    while waiting:
        path, name, section = waiting.popleft()
        yield Section(
            path=path, name=name, meaning=meaning(section), keys=list(keys_of(section, sections))
        )
        for key, spec in section.get("properties", {}).items():
            for inner, steps in sections_in(spec, key):
                if inner not in met:
                    met.add(inner)
                    waiting.append((f"{path}.{steps}".lstrip("."), inner, sections[inner]))


def keys_of(section: JsonObject, sections: JsonObject) -> Iterator[KeyFacts]:
    needed = set(section.get("required", []))
    for key, spec in section.get("properties", {}).items():
        inner = sections[spec["$ref"].rpartition("/")[2]] if "$ref" in spec else {}
        text = meaning(spec) or meaning(inner)
        yield KeyFacts(name=key, spec=spec, default=default(spec, key in needed), meaning=text)


def sections_in(spec: JsonObject, path: str) -> Iterator[tuple[str, str]]:
    """The sections that a key may hold, each with its path."""
    if "$ref" in spec:
        yield spec["$ref"].rpartition("/")[2], path
    for choice in [*spec.get("anyOf", []), *spec.get("oneOf", [])]:
        yield from sections_in(choice, path)
    for inner in ("items", "additionalProperties"):
        if isinstance(spec.get(inner), dict):
            yield from sections_in(spec[inner], f"{path}.N")


def kind(
    spec: JsonObject, section: Callable[[str], str] = str, literal: Callable[[Any], str] = str
) -> str:
    """Which values a key takes.

    Args:
        section: how the name of a section is written.
        literal: how a value is written.
    """
    bounds = [f"{sign} {literal(spec[key])}" for key, sign in BOUNDS.items() if key in spec]
    return ", ".join([kind_alone(spec, section, literal), *bounds])


def kind_alone(
    spec: JsonObject, section: Callable[[str], str], literal: Callable[[Any], str]
) -> str:
    if "$ref" in spec:
        return section(spec["$ref"].rpartition("/")[2])
    if choices := spec.get("anyOf") or spec.get("oneOf"):
        return " or ".join(kind(choice, section, literal) for choice in choices)
    if "const" in spec or "enum" in spec:
        return ", ".join(literal(value) for value in spec.get("enum", [spec.get("const")]))
    if isinstance(spec.get("items"), dict) and spec["items"]:
        return f"list of {kind(spec['items'], section, literal)}"
    return WORDS.get(spec.get("type", ""), "any value")


def default(spec: JsonObject, is_needed: bool) -> str:
    if is_needed:
        return "needed"
    if "default" not in spec or "$ref" in spec:  # a section's defaults are those of its keys
        return ""
    text = json.dumps(spec["default"], ensure_ascii=False)
    return text if len(text) <= LONGEST_DEFAULT else ""


def meaning(spec: JsonObject) -> str:
    return " ".join(spec.get("description", "").split())
