"""Reward functions of the calling program as reward terms, for processes that import them.

A function of a module is named by its file or module. One that no process could import, since it
was written in a script, a notebook or another function, or is a lambda, is pickled by value
(cloudpickle) into a module that loads it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mgrpo.errors import RewardError
from mgrpo.records.json_object import JsonObject

RewardLike = str | Callable[..., Any] | Mapping[str, Any]
"""A check's name, a function, or a reward term in which a function may stand for its name."""

LOADER = '''\
"""The reward function {name!r}, as it was given to mgrpo.train. Written at every start.

{source}
"""

import pickle
from pathlib import Path

{name} = pickle.loads(Path(__file__).with_suffix(".pickle").read_bytes())
'''


def reward_terms(reward: RewardLike | Sequence[RewardLike], folder: Path) -> list[JsonObject]:
    """`rewards.terms` for what a caller gave.

    Args:
        folder: for functions that no process could import.

    Raises:
        RewardError: a function cannot be passed to another process.
    """
    names: set[str] = set()
    entries = reward if isinstance(reward, list | tuple) else [reward]
    return [reward_term(entry, folder, names) for entry in entries]


def reward_term(entry: Any, folder: Path, names: set[str]) -> JsonObject:
    if isinstance(entry, Mapping):
        return {
            key: check_name(value, folder, names) if callable(value) else value
            for key, value in entry.items()
        }
    return {"check": entry if isinstance(entry, str) else check_name(entry, folder, names)}


def check_name(function: Any, folder: Path, names: set[str]) -> str:
    """What a recipe calls a function: `module:name` or `file.py:name`.

    Args:
        names: files that other functions of this run have in the folder; extended.
    """
    if not callable(function):
        raise RewardError(
            f"reward: a {type(function).__name__} is no reward. Give a function (completion, "
            "problem) -> number, the name of a check such as 'math_answer', or a list of these."
        )
    return importable_name(function) or pickled_name(function, folder, names)


def importable_name(function: Any) -> str:
    """Where any process finds the function by importing; "" if nowhere."""
    module = str(getattr(function, "__module__", ""))
    path = str(getattr(function, "__qualname__", ""))
    found: Any = sys.modules.get(module)
    file = getattr(found, "__file__", None)
    if module == "__main__" or file is None or not str(file).endswith(".py"):
        return ""
    for part in path.split("."):
        found = getattr(found, part, None)
    if found is not function:
        return ""
    return f"{module}:{path}" if "." in module else f"{from_here(Path(file))}:{path}"


def from_here(file: Path) -> Path:
    here = Path.cwd().resolve()
    file = file.resolve()
    return file.relative_to(here) if file.is_relative_to(here) else file


def pickled_name(function: Any, folder: Path, names: set[str]) -> str:
    """Write the function into the folder, with a module that loads it."""
    import cloudpickle

    given = getattr(function, "__name__", type(function).__name__)
    name = given if given.isidentifier() else "reward"
    stem = name
    while stem in names:
        stem += "_"
    names.add(stem)
    try:
        pickled = cloudpickle.dumps(function)
    except Exception as error:  # whatever an object raises that cannot be pickled
        raise RewardError(
            f"The reward function {given!r} cannot be passed to the reward processes: {error}. "
            "It refers to an object that cannot leave this process: create that inside the "
            "function, or write both into a file and import the function from there."
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.pickle").write_bytes(pickled)
    text = LOADER.format(name=name, source=source_of(function))
    (folder / f"{stem}.py").write_text(text, encoding="utf-8")
    return f"{folder / stem}.py:{name}"


def source_of(function: Any) -> str:
    """The function's text, for whoever reads the run's inputs; "" if there is none."""
    try:
        lines = inspect.getsource(function)
    except (OSError, TypeError):
        return ""
    return lines.replace("\\", "\\\\").replace('"""', "'''")
