"""The house's numbers are counted right, on sources written for it."""

from __future__ import annotations

import ast

from scripts.house import (
    body_lines,
    circles_of,
    import_circles,
    is_typed,
    modules,
    survey,
    takes_run_config,
)


def function(source: str) -> ast.FunctionDef:
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    return node


def test_a_circle_is_found_however_long_and_a_chain_is_none():
    chain = {"a": {"b"}, "b": {"c"}, "c": set()}
    assert circles_of(chain) == []
    assert circles_of({**chain, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles_of({"a": {"b"}, "b": {"a"}, "c": {"d"}, "d": {"c"}}) == [["a", "b"], ["c", "d"]]


def test_a_body_is_counted_without_its_docstring():
    assert body_lines(function('def f():\n    """Says."""\n    x = 1\n    return x\n')) == 2
    assert body_lines(function("def f():\n    return 1\n")) == 1


def test_typed_means_every_argument_and_the_result():
    assert is_typed(function("def f(a: int, *b: str, c: int = 1) -> int: ...\n"))
    assert not is_typed(function("def f(a, b: int) -> int: ...\n"))
    assert not is_typed(function("def f(a: int): ...\n"))
    assert is_typed(function("def f(self, a: int) -> int: ...\n"))


def test_a_signature_takes_the_whole_recipe_in_any_form():
    assert takes_run_config(function("def f(a: int, *, config: RunConfig | None) -> None: ...\n"))
    assert not takes_run_config(function("def f(a: LearnerConfig) -> RunConfig: ...\n"))


def test_the_house_is_surveyed_whole_and_keeps_its_rules():
    """The limits of the code base. A change that breaks one mends it, or says why it is raised."""
    known = modules()
    house = survey(known)
    assert house.files > 300 and house.lines > 20_000
    assert import_circles(known) == []
    assert house.modules_at_the_top_of_mgrpo <= 12
    assert house.signatures_with_run_config <= 40
    assert house.linter_lines < 700
    assert house.any_mentions <= 300 and house.longest_body <= 110
    assert house.functions_typed == house.functions
    assert house.loop_lines <= 150
    assert house.prints_in_actors == 0
