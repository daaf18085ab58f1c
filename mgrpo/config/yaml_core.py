"""Recipes as YAML text, read by the rules of YAML 1.2's core schema.

PyYAML follows YAML 1.1, which has traps for recipes: `off` is False, `1e-6` is a string,
`010` is 8, `1:30` is 90. Here only true/false are booleans, every spelling of a number that
JSON knows is a number, and all else is text. A key that is given twice is refused.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
INT = re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$")
FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
REPLACED_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "timestamp")}


MAX_VALUES, MAX_LEVELS = 100_000, 64
"""Of a recipe. What an alias stands for counts at each of its places."""


class RecipeLoader(yaml.CSafeLoader):
    """Safe loading with the core schema; duplicate keys are an error, and so are values nested too
    deeply, and aliases by which a few lines are very many values."""

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        values, levels = (0, 0) if node is None else extent(node, {})
        if node is not None and (values > MAX_VALUES or levels > MAX_LEVELS):
            what = f"more than {MAX_VALUES:,} values, or more than {MAX_LEVELS} inside each other"
            raise yaml.constructor.ConstructorError(None, None, f"it has {what}", node.start_mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep=deep)
            if isinstance(value, str):
                value.encode()  # an escape may stand for half a character
            return value
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            tag = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"this is no {tag}, too long for one, or half a character",
                node.start_mark,
            ) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class RecipeDumper(yaml.SafeDumper):
    """Quotes exactly what RecipeLoader would otherwise read as something else."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def core_resolvers(
    resolvers: dict[str, list[tuple[str, re.Pattern[str]]]],
) -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """PyYAML's table of implicit types, with the core schema's booleans and numbers."""
    kept = {
        first: [(tag, pattern) for tag, pattern in entries if tag not in REPLACED_TAGS]
        for first, entries in resolvers.items()
    }
    for tag, pattern, firsts in (
        ("bool", BOOL, "tTfF"),
        ("int", INT, "-+0123456789"),
        ("float", FLOAT, "-+.0123456789"),
    ):
        for first in firsts:
            kept.setdefault(first, []).append((f"tag:yaml.org,2002:{tag}", pattern))
    return kept


RecipeLoader.yaml_implicit_resolvers = core_resolvers(yaml.SafeLoader.yaml_implicit_resolvers)
RecipeDumper.yaml_implicit_resolvers = core_resolvers(yaml.SafeDumper.yaml_implicit_resolvers)


def parse_yaml(text: str) -> Any:
    """The value that YAML text stands for. Raises yaml.YAMLError with line and column."""
    try:
        refuse_many_levels(text)
        return yaml.load(text, Loader=RecipeLoader)  # a CSafeLoader: plain values only
    except UnicodeEncodeError as error:
        raise yaml.YAMLError(f"it holds half a character at position {error.start}") from error


def refuse_many_levels(text: str) -> None:
    """Before libyaml builds nodes: it calls itself for each level, until the stack is full."""
    level = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        level += isinstance(event, yaml.CollectionStartEvent)
        level -= isinstance(event, yaml.CollectionEndEvent)
        if level > MAX_LEVELS:
            raise yaml.YAMLError(f"it has more than {MAX_LEVELS} values inside each other")


def extent(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """(values, levels) in a node, those of an alias at each of its places; more than are allowed
    where it holds itself.

    Args:
        known: of nodes that were measured, by `id`.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1, 1
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1, MAX_LEVELS + 1  # what it is, if it is inside itself
        pairs = node.value if isinstance(node, yaml.MappingNode) else [(one,) for one in node.value]
        inner = [extent(one, known) for pair in pairs for one in pair]
        values, levels = zip((0, 0), *inner, strict=True)
        known[id(node)] = 1 + sum(values), 1 + max(levels)
    return known[id(node)]


def dump_yaml(value: object) -> str:
    """YAML text that `parse_yaml` reads back equal; keys keep their order."""
    return yaml.dump(value, Dumper=RecipeDumper, sort_keys=False, allow_unicode=True, width=100)
