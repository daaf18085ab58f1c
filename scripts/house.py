"""Figures of the code base: size, circular imports, types, and the style rules.

make house
"""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("mgrpo", "actors", "learner", "rewards", "cluster")
LINTER_FUNCTIONS = ("faults", "warnings", "warnings_of")
"""Functions whose name is or ends with one of these check a recipe, wherever they are."""

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


@dataclass(frozen=True, slots=True)
class Module:
    """A source file, read and walked through once."""

    path: str  # from the repository's root
    num_lines: int
    nodes: Sequence[ast.AST]

    @property
    def functions(self) -> list[Function]:
        return [node for node in self.nodes if isinstance(node, Function)]


def modules() -> dict[str, Module]:
    """Every module of the packages by its dotted name."""
    found = {}
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            path, text = file.relative_to(ROOT), file.read_text(encoding="utf-8")
            parts = path.with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = Module(
                path.as_posix(), len(text.splitlines()), list(ast.walk(ast.parse(text)))
            )
    return found


def imports_of(module: Module, known: dict[str, Module]) -> set[str]:
    """The modules of ours that a module imports, wherever in it the import stands."""
    found = set()
    for node in module.nodes:
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


def import_circles(known: dict[str, Module]) -> list[list[str]]:
    """Sets of our modules that import each other."""
    return circles_of({name: imports_of(one, known) - {name} for name, one in known.items()})


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
    return any("RunConfig" in ast.dump(note) for note in notes)


def checks_recipes(function: Function) -> bool:
    return any(
        function.name == name or function.name.endswith(f"_{name}") for name in LINTER_FUNCTIONS
    )


def linter_lines(module: Module) -> int:
    """Lines of a module that check recipes."""
    checks = [one for one in module.functions if checks_recipes(one)]
    return sum((one.end_lineno or 0) - one.lineno + 1 for one in checks)


def is_print(node: ast.AST) -> bool:
    called = node.func if isinstance(node, ast.Call) else None
    return isinstance(called, ast.Name) and called.id == "print"


def survey(known: dict[str, Module]) -> House:
    functions = [one for module in known.values() for one in module.functions]
    return House(
        files=len(known),
        lines=sum(module.num_lines for module in known.values()),
        modules_at_the_top_of_mgrpo=len(list((ROOT / "mgrpo").glob("*.py"))),
        circles=len(import_circles(known)),
        signatures_with_run_config=sum(takes_run_config(one) for one in functions),
        linter_lines=sum(linter_lines(module) for module in known.values()),
        any_mentions=sum(
            isinstance(node, ast.Name) and node.id == "Any"
            for module in known.values()
            for node in module.nodes
        ),
        longest_body=max(body_lines(one) for one in functions),
        functions=len(functions),
        functions_typed=sum(is_typed(one) for one in functions),
        loop_lines=known["mgrpo.training.loop"].num_lines,
        prints_in_actors=sum(
            is_print(node)
            for name, module in known.items()
            if name.startswith(("actors.", "learner."))
            for node in module.nodes
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.house", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    known = modules()
    house = asdict(survey(known))
    if parser.parse_args().json:
        print(json.dumps(house))
        return
    for name, value in house.items():
        print(f"{name.replace('_', ' '):<32} {value:>8,}")
    for circle in import_circles(known):
        print(f"circle: {' <-> '.join(circle)}")


if __name__ == "__main__":
    main()
