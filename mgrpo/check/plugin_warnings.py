"""Warnings for parts of a recipe that have no effect or are duplicated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from learner.plugin import LearnerPlugin
from mgrpo.config import MethodView
from mgrpo.plugin import Entry, Plugin, entries_of, find_plugin, has_one_of, names_in


def plugin_warnings(method: MethodView) -> list[str]:
    """One sentence each, beginning with the entry. Entries that cannot be loaded have none."""
    entries, _ = entries_of(method)
    found: list[str] = []
    for index, entry in enumerate(entries):
        where = f"{entry.path} ({entry.name})"
        found += [f"{where}: {text}" for text in entry_warnings(method, entry, entries[:index])]
    return list(dict.fromkeys(found))


def entry_warnings(method: MethodView, entry: Entry, earlier: Sequence[Entry]) -> Iterator[str]:
    """All warnings of one entry.

    Args:
        earlier: those that work before it.
    """
    try:
        kind = find_plugin(entry.name, entry.kind)
        settings = kind.Settings.model_validate(dict(entry.settings))
    except (ValueError, ValidationError):
        return
    yield from kind.warnings(settings, entry.layers, method)
    for name in sorted(names_in(method) & set(kind.overlaps)):
        yield f"{name} {kind.overlaps[name]}."
    if kind.read_by and not has_one_of(method, kind.read_by):
        yield f"no part of the recipe reads its output. Add {' or '.join(kind.read_by)}."
    for other in earlier:
        if other.name == entry.name and other.layers & entry.layers:
            yield f"is {other.path} too, so its effect is applied twice."
    yield from untrained(method, kind, entry.layers)


def untrained(method: MethodView, kind: type[Plugin], layers: frozenset[int]) -> Iterator[str]:
    """A warning for a learner plug-in whose layers do not train."""
    trains = any(
        values.layers[number - 1].loss_weight > 0 for values in method.ever for number in layers
    )
    if issubclass(kind, LearnerPlugin) and not trains:
        names = ", ".join(method.layers[number - 1].name for number in sorted(layers))
        yield f"works only on {names} with loss_weight 0: it has no effect."
