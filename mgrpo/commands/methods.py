"""`mgrpo methods`: every method in a line, or one of them in full.

Light to import: the command imports heavy packages when it runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgrpo.errors import ConfigError, ConfigFault

if TYPE_CHECKING:
    from rich.console import Console

    from mgrpo.methods.catalog import Key, MethodFacts, PluginFacts

INDENT = "  "


def add_methods(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mgrpo methods` to its parser."""
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="a method, another recipe, or a plug-in to explain; without it all methods are listed",
    )
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.set_defaults(run_command=run_methods)


def run_methods(args: argparse.Namespace) -> int:
    from rich.console import Console

    from mgrpo.methods.catalog import all_methods, unused_plugins

    console = Console(highlight=False)
    if args.name is not None:
        found = find(args.name)
        if args.json:
            print(json.dumps(dataclasses.asdict(found), indent=2))
        else:
            for line in lines_of(found):
                show_line(console, line)
        return 0
    methods = all_methods()
    unused = unused_plugins(methods)
    if args.json:
        whole = {
            "methods": [dataclasses.asdict(method) for method in methods],
            "unused_plugins": [dataclasses.asdict(plugin) for plugin in unused],
        }
        print(json.dumps(whole, indent=2))
        return 0
    show_list(console, methods, unused)
    return 0


def find(name: str) -> MethodFacts | PluginFacts:
    """The method, recipe or plug-in of this name.

    Raises:
        ConfigError: there is none; the message names similar ones.
    """
    from mgrpo.config.load import find_recipe
    from mgrpo.config.parts import HOMES
    from mgrpo.methods.catalog import method_facts, method_files, plugin_facts
    from mgrpo.registry import declared

    files = method_files()
    known = name.removeprefix("methods/")
    if known in files:
        return method_facts(files[known], known)
    parts = [part for kind in HOMES for part in declared(kind)]
    if name in parts or ":" in name:
        facts = plugin_facts(name)
        if facts.fault:
            raise ConfigError([ConfigFault("use", name, facts.fault)], source="mgrpo methods")
        return facts
    try:
        return method_facts(find_recipe(name), name)
    except ConfigError as error:
        near = difflib.get_close_matches(name, [*files, *parts], n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Methods: {', '.join(files)}."
        fault = ConfigFault("method", name, "is not a method, recipe or plug-in.", hint)
        raise ConfigError([fault], source="mgrpo methods") from error


def show_list(
    console: Console, methods: Sequence[MethodFacts], unused: Sequence[PluginFacts]
) -> None:
    """A table for each group; without a terminal each method is one line, to be searched."""
    from mgrpo.methods.catalog import GROUPS, group_of

    widest = max((len(method.id) for method in methods), default=0)
    for group, title in GROUPS.items():
        rows = [(one.id, idea_of(one)) for one in methods if group_of(one) == group]
        show_table(console, title, rows, widest)
    rows = [(one.use, one.fault or one.doc.split("\n\n")[0].replace("\n", " ")) for one in unused]
    show_table(console, "Plug-ins that none of these uses", rows, widest)
    show_line(console, "Explain one: mgrpo methods NAME. Train it: mgrpo train methods/NAME.")


def idea_of(method: MethodFacts) -> str:
    """Its idea, name and paper."""
    idea = method.changes or f"cannot be read: {method.faults[0]}"
    return f"{idea} [{', '.join(text for text in (method.name, method.paper) if text)}]"


def show_table(console: Console, title: str, rows: Sequence[tuple[str, str]], widest: int) -> None:
    """A heading and two columns, of which a terminal wraps the second."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    console.print(Text(title, style="bold"))
    if console.is_terminal:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=widest, no_wrap=True)
        table.add_column()
        for name, text in rows:
            table.add_row(Text(name), Text(text))
        console.print(Padding(table, (0, 0, 1, len(INDENT))))
        return
    for name, text in rows:
        console.print(Text(f"{INDENT}{name:<{widest}}  {text}"), soft_wrap=True)
    console.print()


def show_line(console: Console, text: str) -> None:
    """A paragraph: wrapped on a terminal with its indentation kept, and on one line elsewhere."""
    from rich.padding import Padding
    from rich.text import Text

    depth = len(text) - len(text.lstrip(" "))
    is_heading = depth == 0 and not text.endswith(".")
    styled = Text(text.lstrip(" "), style="bold" if is_heading else "")
    if console.is_terminal:
        console.print(Padding(styled, (0, 0, 0, depth)))
    else:
        console.print(Text(text), soft_wrap=True)


def lines_of(found: MethodFacts | PluginFacts) -> Iterator[str]:
    from mgrpo.methods.catalog import PluginFacts

    return plugin_lines(found) if isinstance(found, PluginFacts) else method_lines(found)


def method_lines(one: MethodFacts) -> Iterator[str]:
    """Everything about a method, a paragraph each."""
    yield " · ".join(text for text in (one.id, one.name, one.paper) if text)
    for line in one.comment.splitlines():
        yield INDENT + line
    if one.chain:
        yield "\nChain"
        yield from (INDENT + words for words in one.chain)
    if one.differences:
        yield "\nDiffers from plain GRPO, whose keys are the defaults"
        yield from key_lines(one.differences)
    if one.training:
        yield "\nAlso set by this recipe"
        yield from key_lines(one.training)
    for plugin in one.plugins:
        yield ""
        yield from plugin_lines(plugin)
    for phase in one.phases:
        yield f"\nPhase from step {phase['from_step']}: {phase['name']}"
        yield from (f"{INDENT}{path}: {text_of(value)}" for path, value in leaves(phase["changes"]))
    if one.faults:
        yield "\nBefore it can train"
        yield from (INDENT + fault for fault in one.faults)
    folder_name = f"methods/{one.id}" if "methods" in one.recipe.split("/") else one.id
    yield f"\nRecipe: {one.recipe}"
    page = Path(one.recipe).with_name("README.md")
    if page.is_file():
        yield f"Page:   {page}"
    yield f"Train:  mgrpo train {folder_name}"


def plugin_lines(plugin: PluginFacts) -> Iterator[str]:
    """A plug-in's own description: docstring, hooks and keys."""
    from mgrpo.config.parts import HOMES

    where = "" if plugin.layers is None else f", on {', '.join(plugin.layers)}"
    home = "Plug-in" if plugin.kind == "PLUGINS" else f"{HOMES[plugin.kind]}:"
    yield f"{home} {plugin.use}{where}"
    if plugin.fault:
        yield INDENT + plugin.fault
        return
    yield from doc_lines(plugin.doc)
    yield f"{INDENT}hooks: {', '.join(plugin.hooks) or 'none'}"
    if plugin.requires:
        yield f"{INDENT}measurements: {', '.join(plugin.requires)} (one more forward pass per step)"
    if plugin.settings:
        yield f"{INDENT}settings:"
        yield from (INDENT + line for line in key_lines(plugin.settings))


def doc_lines(doc: str) -> Iterator[str]:
    """A docstring: paragraphs of prose, and sections whose lines stay as they are."""
    from mgrpo.methods.docstrings import paragraphs, parts_of

    for title, lines in parts_of(doc).items():
        if title in ("", "Reconstructed"):
            prefix = f"{title}: " if title else ""
            yield from (INDENT + prefix + text for text in paragraphs(lines))
        else:
            yield f"{INDENT}{title.lower()}:"
            yield from (2 * INDENT + line for line in lines)


def key_lines(keys: Sequence[Key]) -> Iterator[str]:
    """key: value (default: ...)  meaning"""
    for key in keys:
        default = "" if key.value == key.default else f" (default: {text_of(key.default)})"
        if key.is_required:
            default = " (needed)"
        explained = f"  {key.meaning}" if key.meaning else ""
        yield f"{INDENT}{key.path}: {text_of(key.value)}{default}{explained}"


def text_of(value: object) -> str:
    return value if isinstance(value, str) and value.strip() else json.dumps(value)


def leaves(tree: object, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every end of a tree."""
    if not isinstance(tree, dict):
        yield path, tree
        return
    for name, inner in tree.items():
        yield from leaves(inner, f"{path}.{name}" if path else str(name))
