"""Checks by name: the built-in ones, and a user's own `module:function` or `file.py:function`.

A check is any callable

    check(completion: str, problem: Problem, **settings) -> float | bool | Reward

A bool means right or wrong. A float is the value; 1 or more counts as right. A `Reward` states both
itself. The `settings` of its reward term are passed as keyword arguments. If the chat template
begins the answer ("<think>"), `completion` continues `problem.prompt_opening`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mgrpo.config.own_code import import_own
from mgrpo.errors import RewardError
from mgrpo.rooms import ROOMS
from mgrpo.types import Problem

Check = Callable[..., Any]

BUILT_IN = {
    "math_answer": "rewards.math_answer:math_answer",
    "format": "rewards.format:format_answer",
    "reasoning_gym": "rewards.task_answer:task_answer",
}
EXAMPLE_PROBLEM = Problem(problem_id="example", question="", answer="")


def load_check(name: str, settings: dict[str, object] | None = None) -> Check:
    """The check of that name; imports its module.

    Args:
        name: a key of BUILT_IN, `module:function` or `file.py:function`. Modules are also looked
            for in the current folder.
        settings: keyword arguments that it will be called with, checked against its
            signature.

    Raises:
        RewardError: no such check, its module cannot be imported, or it does not accept the
        settings.
    """
    module_name, colon, function_name = BUILT_IN.get(name, name).partition(":")
    if not (colon and module_name and function_name):
        raise RewardError(unknown_check(name))
    check: object = import_check_module(module_name, name)
    for part in function_name.split("."):
        if not hasattr(check, part):
            raise RewardError(
                f"The check {name!r} does not exist: module {module_name!r} "
                f"({getattr(check, '__file__', 'no file')}) has no {part!r}."
                + taken_for_ours(module_name, check)
                + nearest(part, vars(check) if hasattr(check, "__dict__") else ())
            )
        check = getattr(check, part)
    if not callable(check):
        raise RewardError(f"The check {name!r} is a {type(check).__name__}, expected a function.")
    refuse_wrong_signature(check, name, settings or {})
    return check


def import_check_module(module_name: str, name: str) -> object:
    try:
        if name in BUILT_IN:
            return importlib.import_module(module_name)
        return import_own(module_name)
    except Exception as error:  # a user's module may raise anything on import
        hint = ""
        if isinstance(error, ModuleNotFoundError) and error.name == module_name.split(".")[0]:
            places = f"{Path.cwd()}, beside the recipe and in the installed packages"
            hint = f" Searched: {places}."
        raise RewardError(
            f"The check {name!r} cannot be loaded: importing {module_name!r} raised "
            f"{type(error).__name__}: {error}.{hint}"
        ) from error


def refuse_wrong_signature(check: Check, name: str, settings: dict[str, object]) -> None:
    """Find a misspelt setting before a run starts instead of in every check."""
    if inspect.iscoroutinefunction(check):
        raise RewardError(
            f"The check {name!r} is an async function; write it as a synchronous one."
        )
    try:
        signature = inspect.signature(check)
    except (TypeError, ValueError):
        return  # some callables written in C have no signature
    try:
        signature.bind("completion", EXAMPLE_PROBLEM, **settings)
    except TypeError as error:
        raise RewardError(
            f"The check {name!r} cannot be called with (completion, problem"
            f"{''.join(f', {key}=...' for key in settings)}): {error}. "
            f"Its signature is {signature}; fix `settings` of its reward term, or the check."
        ) from error


def taken_for_ours(module_name: str, found: object) -> str:
    """A hint if a user's missing file has the name of one of our packages."""
    if getattr(found, "__name__", "").partition(".")[0] not in ROOMS:
        return ""
    file = f"{module_name.replace('.', '/')}.py"
    return f" That is mgrpo's own package; there is no {file} in {Path.cwd()} or beside the recipe."


def unknown_check(name: str) -> str:
    return (
        f"There is no check {name!r}.{nearest(name, BUILT_IN)} Built in: {', '.join(BUILT_IN)}; "
        "name your own as `module:function` or `./file.py:function`."
    )


def nearest(name: str, choices: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""
