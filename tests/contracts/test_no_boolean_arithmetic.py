"""A condition is written as a condition: no Boolean is multiplied with a text or a list.

`"..." * is_last` and `[...] * (a == b)` look like repetition by a count. Write `"..." if is_last
else ""` and `[...] if a == b else []` instead.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.contracts.sources import ROOMS, python_files, shown, tree_of

FOLDERS = (*ROOMS, "scripts", "benchmarks")
CLAIMS = ("is_", "has_", "with_", "takes_", "can_")
SEQUENCES = (ast.JoinedStr, ast.List, ast.Tuple, ast.ListComp)


def boolean_names(trees: list[ast.Module]) -> set[str]:
    """Names that these files annotate as `bool`: variables, fields, parameters, properties."""
    names = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="bool")):
                names.add(name)
            case ast.arg(arg=name, annotation=ast.Name(id="bool")):
                names.add(name)
            case ast.FunctionDef(name=name, returns=ast.Name(id="bool")):
                names.add(name)
    return names


def is_sequence(node: ast.expr) -> bool:
    """Is it written as a text or a list where it stands?"""
    return isinstance(node, SEQUENCES) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def is_boolean(node: ast.expr, names: set[str]) -> bool:
    """Is it true or false by its form or by its name?"""
    match node:
        case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
            return True
        case ast.Constant(value=bool()):
            return True
        case ast.Call(func=ast.Name(id="bool" | "isinstance" | "any" | "all")):
            return True
        case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)):
            return name in names or name.startswith((*CLAIMS, "is", "startswith", "endswith"))
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in names or name.startswith(CLAIMS)
        case _:
            return False


def boolean_multiplications(tree: ast.Module, names: set[str]) -> list[tuple[int, str]]:
    """(line, source) of each product of a Boolean with a text or a list."""
    found = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)):
            continue
        for one, other in ((node.left, node.right), (node.right, node.left)):
            if is_sequence(one) and is_boolean(other, names):
                found.append((node.lineno, ast.unparse(node)))
    return found


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: tree_of(path) for path in python_files(*FOLDERS)}


def test_no_boolean_is_multiplied_with_a_text_or_a_list(trees: dict[Path, ast.Module]) -> None:
    names = boolean_names(list(trees.values()))
    found = [
        f"{shown(path)}:{line}: {source}"
        for path, tree in trees.items()
        for line, source in boolean_multiplications(tree, names)
    ]
    assert not found, "Write `... if condition else ...`:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "text = 'and the learner' * with_learner",
        "text = with_learner * f' and {name}'",
        "items = [1] * (a == b)",
        "items = [1] * (not a)",
        "text = 'a' * bool(b)",
        "text = 'a' * own.scale_by_std",
        "text = ' ' * word.isspace()",
        "text = 'a' * (b and c)",
    ],
)
def test_the_check_finds_a_boolean_factor(source: str) -> None:
    assert boolean_multiplications(ast.parse(source), {"scale_by_std"})


@pytest.mark.parametrize(
    "source", ["text = ' ' * indent", "items = [0.0] * len(rows)", "x = mask * values", "y = 2 * n"]
)
def test_repetition_by_a_count_is_left_alone(source: str) -> None:
    assert not boolean_multiplications(ast.parse(source), {"scale_by_std"})
