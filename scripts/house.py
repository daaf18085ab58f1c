"""Figures of the code base: size, circular imports, types, and the style rules.

make house
"""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("mgrpo", "actors", "learner", "rewards", "cluster")
LINTER_FUNCTIONS = ("faults", "warnings", "exclusive_hooks")
"""Functions whose name is or ends with one of these check a recipe."""
LINTER_FILES = (
    "mgrpo/check/plugin_warnings.py",
    "mgrpo/config/objective_warnings.py",
    "learner/plugin_pairs.py",
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class House:
    """Everything is counted over the five packages, tests and scripts left out."""

    files: int
    lines: int
    modules_at_the_top_of_mgrpo: int
    circles: int  # sets of modules that import each other, TYPE_CHECKING and late imports included
    signatures_with_run_config: int
    linter_lines: int
    any_mentions: int
    longest_body: int  # lines, docstring left out
    functions: int
    functions_typed: int
    loop_lines: int
    prints_in_actors: int


def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name."""
    found = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(tree: ast.Module, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a module imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(known)


def circles_of(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected sets of more than one module (Tarjan 1972), sorted."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = lowest[module] = len(index)
        stack.append(module)
        for imported in sorted(graph[module]):
            if imported not in index:
                visit(imported)
                lowest[module] = min(lowest[module], lowest[imported])
            elif imported in stack:
                lowest[module] = min(lowest[module], index[imported])
        if lowest[module] == index[module]:
            members = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(members) > 1:
                found.append(sorted(members))

    for module in sorted(graph):
        if module not in index:
            visit(module)
    return sorted(found)


def import_circles() -> list[list[str]]:
    """Sets of our modules that import each other."""
    known = modules()
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in known.items()}
    graph = {name: imports_of(tree, known) - {name} for name, tree in trees.items()}
    return circles_of(graph)


def functions_of(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Lines of a function's body, its docstring left out."""
    body = function.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def is_typed(function: Function) -> bool:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    starred = [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    free = named[1:] if named and named[0].arg in ("self", "cls") else named
    return function.returns is not None and all(one.annotation for one in [*free, *starred])


def takes_run_config(function: Function) -> bool:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    notes = [argument.annotation for argument in named if argument.annotation is not None]
    return any("RunConfig" in ast.unparse(note) for note in notes)


def checks_recipes(function: Function, path: str) -> bool:
    is_named = any(
        function.name == name or function.name.endswith(f"_{name}") for name in LINTER_FUNCTIONS
    )
    is_here = path.startswith(("mgrpo/config/", "mgrpo/methods/", "learner/", "actors/"))
    return is_named and is_here


def survey() -> House:
    known = modules()
    texts = {name: path.read_text(encoding="utf-8") for name, path in known.items()}
    trees = {name: ast.parse(text) for name, text in texts.items()}
    functions = [(name, one) for name, tree in trees.items() for one in functions_of(tree)]
    where = {name: path.relative_to(ROOT).as_posix() for name, path in known.items()}
    linter = sum(
        (one.end_lineno or 0) - one.lineno + 1
        for name, one in functions
        if where[name] not in LINTER_FILES and checks_recipes(one, where[name])
    )
    linter += sum(
        len((ROOT / file).read_text(encoding="utf-8").splitlines())
        for file in LINTER_FILES
        if (ROOT / file).exists()
    )
    return House(
        files=len(known),
        lines=sum(len(text.splitlines()) for text in texts.values()),
        modules_at_the_top_of_mgrpo=len(list((ROOT / "mgrpo").glob("*.py"))),
        circles=len(import_circles()),
        signatures_with_run_config=sum(takes_run_config(one) for _, one in functions),
        linter_lines=linter,
        any_mentions=sum(
            isinstance(node, ast.Name) and node.id == "Any"
            for tree in trees.values()
            for node in ast.walk(tree)
        ),
        longest_body=max(body_lines(one) for _, one in functions),
        functions=len(functions),
        functions_typed=sum(is_typed(one) for _, one in functions),
        loop_lines=len(texts["mgrpo.training.loop"].splitlines()),
        prints_in_actors=sum(
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "print"
            for name, tree in trees.items()
            if name.startswith(("actors.", "learner."))
            for node in ast.walk(tree)
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.house", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    house = asdict(survey())
    if parser.parse_args().json:
        print(json.dumps(house))
        return
    for name, value in house.items():
        print(f"{name.replace('_', ' '):<32} {value:>8,}")
    for circle in import_circles():
        print(f"circle: {' <-> '.join(circle)}")


if __name__ == "__main__":
    main()
