"""Functions of a reward by name: the built-in checks, and a user's own `module:function` or
`file.py:function`.

A check is any callable

    check(completion: str, problem: Problem, **settings) -> float | bool | Reward

A bool means right or wrong. A float is the value; `correct_at` of its term, 1 by default, or more
counts as right. A `Reward` states both itself. The `settings` of its reward term are passed as
keyword arguments. If the chat template begins the answer ("<think>"), `completion` continues
`problem.prompt_opening`. It may be async. `rewards/conventions.py` has the other kinds.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mgrpo.config.own_code import import_own
from mgrpo.config.rewards import FunctionTerm, TermKind
from mgrpo.errors import RewardError
from mgrpo.rooms import ROOMS
from mgrpo.types import Problem
from rewards.conventions import RewardFunction, needed

Check = Callable[..., Any]

BUILT_IN = {
    "math_answer": "rewards.math_answer:math_answer",
    "format": "rewards.format:format_answer",
    "reasoning_gym": "rewards.task_answer:task_answer",
    "code_answer": "rewards.code.check:code_answer",
}
EXAMPLE_PROBLEM = Problem(problem_id="example", question="", answer="")
ARGUMENTS: Mapping[TermKind, tuple[str, ...]] = MappingProxyType(
    {
        "check": ("completion", "problem"),
        "batch": ("completions", "problem"),
        "verl": ("data_source", "solution_str", "ground_truth", "extra_info"),
        "openrlhf": ("queries", "prompts", "labels"),
        "trl": ("prompts", "completions", "completion_ids"),
    }
)
"""What a function of each kind is called with."""
MARKS: Mapping[TermKind, set[str]] = MappingProxyType(
    {
        "check": {"completion", "problem"},
        "batch": {"completions", "problem"},
        "verl": {"solution_str"},
        "openrlhf": {"queries"},
        "trl": {"completions"},
    }
)
"""Parameters by which a function of each kind is known, the surest first."""
FROM_ELSEWHERE = ("trl", "verl", "openrlhf")
NEEDS_CORRECT_AT = ", with correct_at: the number that it returns for a right completion"
NOT_GIVEN = {"trainer_state", "environments"}
"""What TRL gives to a reward function, and we do not have."""


def load_function(term: FunctionTerm) -> RewardFunction:
    """A term's function; imports its module.

    Raises:
        RewardError: there is none, its module cannot be imported, or its signature is not that of
            the term's kind and settings.
    """
    found = load_check(term.function, term.settings, kind=term.KEY)
    is_async = any(map(inspect.iscoroutinefunction, (found, type(found).__call__)))
    return RewardFunction(term=term, call=found, signature=signature_of(found), is_async=is_async)


def load_check(
    name: str, settings: Mapping[str, object] | None = None, *, kind: TermKind = "check"
) -> Check:
    """The function of that name; imports its module.

    Args:
        name: a key of BUILT_IN, `module:function` or `file.py:function`. Modules are also looked
            for in the current folder.
        settings: keyword arguments that it will be called with, checked against its
            signature.
        kind: how it will be called.

    Raises:
        RewardError: no such function, its module cannot be imported, or its signature does not fit.
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
    refuse_wrong_signature(check, name, settings or {}, kind)
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


def signature_of(check: Check) -> inspect.Signature | None:
    """None for callables written in C that have none."""
    try:
        return inspect.signature(check)
    except (TypeError, ValueError):
        return None


def refuse_wrong_signature(
    check: Check, name: str, settings: Mapping[str, object], kind: TermKind
) -> None:
    """Find a misspelt setting, or another system's function, before a run starts instead of in
    every call."""
    signature = signature_of(check)
    if signature is None:
        return
    fault = signature_fault(signature, settings, kind)
    known = signature.parameters.keys()
    looks = next((other for other, marks in MARKS.items() if marks <= known), kind)
    is_taken_for_ours = looks != kind and kind in ("check", "batch")  # any two arguments would do
    if not (fault or is_taken_for_ours):
        return
    given = [*ARGUMENTS[kind], *(f"{key}=..." for key in settings)]
    raise RewardError(
        f"The check {name!r} cannot be called with ({', '.join(given)})"
        f"{f': {fault}' if fault else ''}. Its signature is {signature}"
        + (
            f", as functions have in `{looks}` terms: write `{looks}: {name}` in place of "
            f"`{kind}: {name}`{NEEDS_CORRECT_AT if looks in FROM_ELSEWHERE else ''}."
            if looks != kind
            else "; fix `settings` of its reward term, or the check."
        )
    )


def signature_fault(
    signature: inspect.Signature, settings: Mapping[str, object], kind: TermKind
) -> str:
    """Why a function cannot be called as its kind is, or ""."""
    known, ours = signature.parameters, ARGUMENTS[kind]
    absent = NOT_GIVEN & set(needed(signature)) - settings.keys()
    if kind == "trl" and absent:
        return f"{', '.join(sorted(absent))} of TRL's trainer is not there: give it a default"
    try:
        if kind in ("check", "batch"):
            signature.bind("completion", EXAMPLE_PROBLEM, **settings)
            return ""
        named = {name for name in ours if name in known} | settings.keys()
        if kind == "trl":  # what else it needs is a column of the data
            named |= set(needed(signature))
        signature.bind(**dict.fromkeys(named))
    except TypeError as error:
        return str(error)
    takes_any = any(one.kind is one.VAR_KEYWORD for one in known.values())
    if kind == "trl" and "completions" not in known and not takes_any:
        return "it does not take completions"
    return ""


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
