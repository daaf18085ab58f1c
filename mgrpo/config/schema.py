"""The JSON schema of recipes, for editors."""

from __future__ import annotations

import json

from mgrpo.records.json_object import JsonObject

EXTENDS = {
    "type": "string",
    "description": "A recipe that this one changes: a shipped one's name, or a file beside it. "
    "Sections merge key by key; lists and all else are replaced. A list of named entries may be "
    "changed by a map from names to changes: layers: {correct: {group_size: 8}}.",
}


def recipe_schema() -> JsonObject:
    """The schema of a recipe's file.

    Any key may be left out where the recipe extends another, whose lists of named entries may then
    be changed by maps. A slot may be written as its kind's name alone, an entry of `layers` without
    its kind.
    """
    from mgrpo.config.run import RunConfig

    schema = RunConfig.model_json_schema(mode="validation")
    sections = schema["$defs"]
    for section in [schema, *sections.values()]:
        loosen(section)
    sections["EngineRange"] = {"anyOf": [{"type": "integer"}, sections["EngineRange"]]}
    needed = schema.pop("required", [])
    schema["properties"] = {"extends": EXTENDS, **schema["properties"]}
    schema["anyOf"] = [{"required": ["extends"]}, {"required": needed}]
    for section in sections.values():
        section.pop("required", None)  # the base has what a changed section leaves out
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "mgrpo recipe"} | {
        key: value for key, value in schema.items() if key != "title"
    }


def schema_text() -> str:
    return json.dumps(recipe_schema(), indent=1, ensure_ascii=False) + "\n"


def loosen(section: JsonObject) -> None:
    """Allow, in each property, the short forms that the loader reads."""
    properties = section.get("properties", {})
    for spec in list(properties.values()):
        add_short_forms(spec)
        if "spelled" in spec:
            properties[spec.pop("spelled")] = spec


def add_short_forms(spec: JsonObject) -> None:
    choices = spec.pop("oneOf", None)
    kinds = spec.pop("discriminator", {}).get("mapping", {})
    if choices is not None:
        spec["anyOf"] = [*choices, {"type": "string", "examples": sorted(kinds)}]
    if isinstance(spec.get("items"), dict):
        items = spec["items"]
        add_short_forms(items)
        if "$ref" in items or "anyOf" in items:  # a list of sections: by name, where it is extended
            rest = {key: spec.pop(key) for key in ("type", "items", "minItems") if key in spec}
            spec["anyOf"] = [rest, {"type": "object"}]
