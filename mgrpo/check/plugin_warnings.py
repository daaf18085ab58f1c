"""Warnings for parts of a recipe that have no effect or are duplicated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from learner.plugin import LearnerPlugin
from mgrpo.config import RunConfig
from mgrpo.plugin import Entry, Plugin, entries_of, find_plugin, has_one_of, names_in


def plugin_warnings(config: RunConfig) -> list[str]:
    """One sentence each, beginning with the entry. Entries that cannot be loaded have none."""
    entries, _ = entries_of(config)
    found: list[str] = []
    for index, entry in enumerate(entries):
        where = f"{entry.path} ({entry.name})"
        found += [f"{where}: {text}" for text in entry_warnings(config, entry, entries[:index])]
    return list(dict.fromkeys(found))


def entry_warnings(config: RunConfig, entry: Entry, earlier: Sequence[Entry]) -> Iterator[str]:
    """All warnings of one entry.

    Args:
        earlier: those that work before it.
    """
    try:
        kind = find_plugin(entry.name, entry.kind)
        settings = kind.Settings.model_validate(dict(entry.settings))
    except (ValueError, ValidationError):
        return
    yield from kind.warnings(settings, entry.layers, config)
    for name in sorted(names_in(config) & set(kind.overlaps)):
        yield f"{name} {kind.overlaps[name]}."
    if kind.read_by and not has_one_of(config, kind.read_by):
        yield f"no part of the recipe reads its output. Add {' or '.join(kind.read_by)}."
    for other in earlier:
        if other.name == entry.name and other.layers & entry.layers:
            yield f"is {other.path} too, so its effect is applied twice."
    yield from untrained(config, kind, entry.layers)


def untrained(config: RunConfig, kind: type[Plugin], layers: frozenset[int]) -> Iterator[str]:
    """A warning for a learner plug-in whose layers do not train."""
    trains = any(
        phase.layers[number - 1].loss_weight > 0
        for _, phase in config.phase_configs
        for number in layers
    )
    if issubclass(kind, LearnerPlugin) and not trains:
        names = ", ".join(config.layers[number - 1].name for number in sorted(layers))
        yield f"works only on {names} with loss_weight 0: it has no effect."
