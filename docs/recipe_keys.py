"""Every key of a recipe as Markdown tables, read from the JSON schema of the configuration."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from typing import Any

from mgrpo.config import RunConfig

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
LONGEST_DEFAULT = 60  # characters in a table's cell


def recipe_keys() -> str:
    """A heading and a table for each section, from the outermost inwards."""
    schema = RunConfig.model_json_schema()
    sections = schema["$defs"]
    waiting, met, parts = deque([("", "RunConfig", schema)]), {"RunConfig"}, []
    while waiting:
        path, name, section = waiting.popleft()
        parts.append(table(path, name, section, sections))
        for key, spec in section.get("properties", {}).items():
            for inner, steps in sections_in(spec, key):
                if inner not in met:
                    met.add(inner)
                    waiting.append((f"{path}.{steps}".lstrip("."), inner, sections[inner]))
    return "\n\n".join(parts)


def sections_in(spec: Any, path: str) -> Iterator[tuple[str, str]]:
    """The sections that a key may hold, each with its path; N stands for a place in a list."""
    if "$ref" in spec:
        yield spec["$ref"].rpartition("/")[2], path
    for choice in [*spec.get("anyOf", []), *spec.get("oneOf", [])]:
        yield from sections_in(choice, path)
    for inner in ("items", "additionalProperties"):
        if isinstance(spec.get(inner), dict):
            yield from sections_in(spec[inner], f"{path}.N")


def table(path: str, name: str, section: Any, sections: Any) -> str:
    needed = set(section.get("required", []))
    rows = []
    for key, spec in section.get("properties", {}).items():
        inner = sections[spec["$ref"].rpartition("/")[2]] if "$ref" in spec else {}
        text = cell(meaning(spec) or meaning(inner))
        rows.append(f"| `{key}` | {kind(spec)} | {default(spec, key in needed)} | {text} |")
    title = f"`{path}`: {name}" if path else "The recipe"
    head = f"({name})=\n## {title}\n\n{meaning(section)}"
    return "\n".join([head, "", "| Key | Values | Default | Meaning |", "| - | - | - | - |", *rows])


def kind(spec: Any) -> str:
    """Which values a key takes, with links to the sections that they are."""
    bounds = [f"{sign} `{cell(spec[key])}`" for key, sign in BOUNDS.items() if key in spec]
    return ", ".join([kind_alone(spec), *bounds])


def kind_alone(spec: Any) -> str:
    if "$ref" in spec:
        name = spec["$ref"].rpartition("/")[2]
        return f"[{name}](#{name})"
    if choices := spec.get("anyOf") or spec.get("oneOf"):
        return " or ".join(kind(choice) for choice in choices)
    if "const" in spec or "enum" in spec:
        return ", ".join(f"`{value}`" for value in spec.get("enum", [spec.get("const")]))
    if isinstance(spec.get("items"), dict) and spec["items"]:
        return f"list of {kind(spec['items'])}"
    return WORDS.get(spec.get("type", ""), "any value")


def default(spec: Any, is_needed: bool) -> str:
    if is_needed:
        return "needed"
    if "default" not in spec or "$ref" in spec:  # a section's defaults are in its own table
        return ""
    text = json.dumps(spec["default"], ensure_ascii=False)
    return f"`{cell(text)}`" if len(text) <= LONGEST_DEFAULT else ""


def meaning(spec: Any) -> str:
    return " ".join(spec.get("description", "").split())


def cell(text: Any) -> str:
    return str(text).replace("|", "\\|")
