"""Every key of a recipe as Markdown tables."""

from __future__ import annotations

from typing import Any

from mgrpo.config.key_list import KeyFacts, Section, all_sections, kind


def recipe_keys() -> str:
    """A heading and a table for each section, from the outermost inwards."""
    return "\n\n".join(map(table, all_sections()))


def table(section: Section) -> str:
    title = f"`{section.path}`: {section.name}" if section.path else "The recipe"
    head = f"({section.name})=\n## {title}\n\n{section.meaning}"
    top = ["| Key | Values | Default | Meaning |", "| - | - | - | - |"]
    return "\n".join([head, "", *top, *map(row, section.keys)])


def row(key: KeyFacts) -> str:
    values = kind(key.spec, lambda name: f"[{name}](#{name})", lambda value: f"`{cell(value)}`")
    default = key.default if key.default in ("", "needed") else f"`{cell(key.default)}`"
    return f"| `{key.name}` | {values} | {default} | {cell(key.meaning)} |"


def cell(text: Any) -> str:
    return str(text).replace("|", "\\|")
