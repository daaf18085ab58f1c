"""Slots: keys that hold one of several kinds, told apart by a tag (`type`).

    parents: best                          # a kind by its name alone, with its defaults
    parents: {type: best, tie_break: first}
    layout: {quote: answer_only}           # without a tag: the slot's default kind

Each kind is a section with its own keys, so a key that a kind does not know cannot be written.
"""

from __future__ import annotations

from pydantic import BeforeValidator

TAGS = ("source", "use", "kind", "type")
"""Keys that tell the sections of a union apart."""


def by_name(default: str, tag: str = "type", *, spelled: str = "") -> BeforeValidator:
    """Reads a slot that is written as a kind's name, or without one.

    Args:
        default: the kind of a section without a tag.
        tag: the key that names the kind.
        spelled: another key that may stand in its place.
    """

    def read(value: object) -> object:
        if isinstance(value, str):
            return {tag: value}
        if isinstance(value, dict) and spelled in value and tag not in value:
            return {tag if key == spelled else key: one for key, one in value.items()}
        if isinstance(value, dict) and tag not in value:
            return {tag: default, **value}
        return value

    return BeforeValidator(read)


SLOTS = frozenset(
    {
        "parents",
        "layout",
        "early_stop",
        "draw",
        "guidance",
        "advantage",
        "aggregation",
        "loss",
        "importance",
        "update_order",
        "source",
        "above",
        "sampler",
    }
)
"""Keys that may hold a kind's bare name."""


def as_section(key: str, value: object) -> object:
    """The section that a key holds, to change something in it: an empty one where there is none,
    and `{type: best}` for a slot that holds the name `best`."""
    if value is None:
        return {}
    return {"type": value} if key in SLOTS and isinstance(value, str) else value
