"""Recipes of the form before slots, in today's form. Kept for one release.

    python -m mgrpo.config.translate my_recipe.yaml > new.yaml

`translate` works on a recipe's tree of values, as YAML gives it, with or without `extends`.
Comments and anchors are lost; `mgrpo check` names the new key for each old one.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgrpo.config.recipe_file import read_tree
from mgrpo.config.slots import as_section
from mgrpo.config.yaml_core import dump_yaml
from mgrpo.errors import ConfigError
from mgrpo.records.json_object import JsonObject
from mgrpo.registry import declared

LAYER_KEYS = {
    "parents_k": "parents.k",
    "tie_break": "parents.tie_break",
    "all_fail": "parents.all_fail",
    "quote": "layout.quote",
    "max_quote_tokens": "layout.max_quote_tokens",
    "guidance.fixed_index": "guidance.draw.index",
    "guidance.weights": "guidance.draw.weights",
}
"""Keys of a layer that have moved, and where to."""
OBJECTIVE_KEYS = {
    "clip_low": "loss.clip_low",
    "clip_high": "loss.clip_high",
    "dual_clip": "loss.dual_clip",
    "importance.mode": "importance.type",
}
"""Keys of the objective that have moved, and where to."""
SOURCE_SECTIONS = {
    "objective.correction_buffer": "correction_buffer",
    "objective.preferences": "preferences",
    "objective.error_pool": "error_pool",
    "sampling.dynamic": "dynamic",
}
"""Sections that sources have become, in the order in which these were stacked, uppermost first."""
SOURCE_ORDERS = {"pooled_errors": "error_pool", "preference_phases": "preferences"}
"""Values of update_order that are sources now."""
Z_SCORE = ("scale_by_std", "ddof", "epsilon")
"""Keys of objective.advantage, which every layer has of its own now."""
RAFT = {"raft": "positive", "raft_plus_plus": "positive", "reinforce_rej": "mixed_groups"}
"""The kinds of `keep` by the variants of before."""


SOURCE_KEYS = {
    "data.robust": "data.sampler: {type: robust}",
    "objective.train_on": "source.train_on",
    "objective.rollout_policy": "objective.update_order.rollout_policy",
}
"""Other keys that have moved with the sources, and where to."""


def translate(tree: JsonObject) -> JsonObject:
    """The tree in today's form; what is in today's form already stays as it is."""
    new = copy.deepcopy(tree)
    translate_sections(new)
    for phase in new.get("phases") or ():
        if isinstance(phase, dict) and isinstance(phase.get("changes"), dict):
            translate_sections(phase["changes"])
            below_replay(phase["changes"], new.get("source"))
    return new


def translate_sections(tree: JsonObject) -> None:
    layers = layers_in(tree)
    for layer in layers:
        for old, now in LAYER_KEYS.items():
            move(layer, old, now)
    objective = tree.get("objective")
    if isinstance(objective, dict):
        for old, now in OBJECTIVE_KEYS.items():
            move(objective, old, now)
        correction = objective.get("importance")
        if isinstance(correction, dict) and correction.get("type") == "off":
            objective["importance"] = "none"
        if layers:
            settings = objective.pop("advantage", {})
            for layer in layers:
                if layer.get("advantage", "group_z") == "group_z" and settings:
                    layer["advantage"] = dict(settings)
    if layers and isinstance(tree.get("plugins"), list):
        kept = [one for one in tree["plugins"] if not into_slot(tree, one)]
        tree["plugins"] = kept
        if not kept:
            del tree["plugins"]
    translate_sources(tree)
    for section in ("objective", "sampling"):
        if tree.get(section) == {}:
            del tree[section]


def translate_sources(tree: JsonObject) -> None:
    """What a step trains on, which five sections said."""
    move(tree, "data.robust", "data.sampler", kind="robust")
    order = (tree.get("objective") or {}).get("update_order")
    is_part = "extends" in tree or "steps" not in tree  # changes of another recipe
    policy = take(tree, ["objective", "rollout_policy"])
    if policy == "snapshot":
        tree["objective"]["update_order"] = {"type": "sequential", "rollout_policy": policy}
    asked = SOURCE_ORDERS.get(order) if isinstance(order, str) else None
    if asked:
        del tree["objective"]["update_order"]
    found: list[JsonObject] = []
    for path, name in SOURCE_SECTIONS.items():
        settings = take(tree, path.split("."))
        if name == "preferences" and (pairs := take(tree, ["objective", "train_on"])) is not None:
            settings = {"train_on": pairs, **(settings or {})}
        if asked == name or (settings is not None and name not in SOURCE_ORDERS.values()):
            found.append({"type": name, **(settings or {})})
        elif settings is not None and order is None and is_part:
            found.append(settings)
    if found:
        for upper, lower in itertools.pairwise(found):
            upper["above"] = lower
        tree["source"] = found[0]


def below_replay(changes: JsonObject, source: Any) -> None:
    """Change the source below the corrections that are replayed, where a recipe has both."""
    is_below = isinstance(source, dict) and source.get("type") == "correction_buffer"
    if is_below and "above" in source and "source" in changes:
        changes["source"] = {"above": changes["source"]}


def into_slot(tree: JsonObject, entry: object) -> bool:
    """Put a plug-in of before into the slot that it fills now; False: it fills none."""
    if not isinstance(entry, dict) or not isinstance(entry.get("use"), str):
        return False
    name, settings = entry["use"], dict(entry.get("settings") or {})
    kinds = [kind for kind in ("ADVANTAGES", "LOSSES", "IMPORTANCE") if name in declared(kind)]
    if not kinds:
        return False
    objective = tree.setdefault("objective", {})
    if name == "dagrpo":
        moved = {
            key: settings.pop(key) for key in ("gamma", "clip_low", "clip_high") & settings.keys()
        }
        objective["loss"] = filled("shaped_probability", moved)
    if name == "raft":
        settings["keep"] = RAFT[settings.pop("variant")]
    if kinds[0] == "LOSSES":
        objective["loss"] = filled(name, settings)
    if kinds[0] == "IMPORTANCE":
        objective["importance"] = filled(name, settings)
    if kinds[0] == "ADVANTAGES" or name == "disco":
        value = "none" if name == "disco" else filled(name, settings)
        named = entry.get("layers")
        for layer_name, layer in named_layers(tree):
            if named is None or layer_name in named:
                layer["advantage"] = value
    return True


def filled(name: str, settings: JsonObject) -> object:
    """A slot: the kind's name, or a section with its keys."""
    return {"type": name, **settings} if settings else name


def named_layers(tree: JsonObject) -> list[tuple[object, JsonObject]]:
    layers = tree.get("layers")
    if isinstance(layers, dict):
        return [(name, layer) for name, layer in layers.items() if isinstance(layer, dict)]
    return [(layer.get("name"), layer) for layer in layers_in(tree)]


def layers_in(tree: JsonObject) -> list[JsonObject]:
    """The layers that a tree writes out or changes by name."""
    layers = tree.get("layers")
    entries = list(layers.values()) if isinstance(layers, dict) else layers or []
    return [entry for entry in entries if isinstance(entry, dict)]


def move(tree: JsonObject, old: str, now: str, kind: str = "") -> None:
    """Take the value at one dotted path to another; null and nothing are left out.

    Args:
        kind: of the slot that a section has become.
    """
    value = take(tree, old.split("."))
    if value is None:
        return
    if kind:
        value = {"type": kind, **value}
    *sections, last = now.split(".")
    for section in sections:
        tree[section] = as_section(section, tree.get(section))
        tree = tree[section]
    tree[last] = value


def take(tree: object, path: list[str]) -> Any:
    """Remove and return what stands at a path; None where nothing does."""
    for section in path[:-1]:
        tree = tree.get(section) if isinstance(tree, dict) else None
    return tree.pop(path[-1], None) if isinstance(tree, dict) else None


def new_name(path: str, value: str = "") -> str:
    """The new name of an old key: "layers.1.parents_k" -> "layers.1.parents.k"; "" for a
    key that was never there, or is still called so.

    Args:
        value: what it was given, as text.
    """
    if path.startswith("phases."):
        before, changes, path = path.partition(".changes.")
        now = new_name(path, value)
        return f"{before}{changes}{now}" if now else ""
    section, _, rest = path.partition(".")
    for old, kind in SOURCE_SECTIONS.items():
        if path == old or path.startswith(f"{old}."):
            return f"source{path.removeprefix(old) or f': {{type: {kind}}}'}"
    if path == "objective.update_order" and value in SOURCE_ORDERS:
        return f"source: {SOURCE_ORDERS[value]}"
    if path in SOURCE_KEYS:
        return SOURCE_KEYS[path]
    if section == "objective":
        key = rest.removeprefix("advantage.")
        if (key != rest and key in Z_SCORE) or rest == "advantage":
            return f"layers.N.advantage{rest.removeprefix('advantage')}"
        return f"objective.{OBJECTIVE_KEYS[rest]}" if rest in OBJECTIVE_KEYS else ""
    index, _, key = rest.partition(".")
    if section == "layers" and key in LAYER_KEYS:
        return f"layers.{index}.{LAYER_KEYS[key]}"
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mgrpo.config.translate",
        description="Write a recipe of the earlier form to standard output, in today's form.",
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE.yaml")
    try:
        tree = read_tree(parser.parse_args(argv).recipe)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(dump_yaml(translate(tree)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
