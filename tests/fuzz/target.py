"""What a target of fuzzing is, and all of them by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from mgrpo.errors import MgrpoError


@dataclass(frozen=True, slots=True)
class Seed:
    """A valid file, which cases are made of, or such a case."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Target:
    """Reads one kind of file, which others may have written.

    It ends without an error, or with one that its reader documents. Anything else is a finding.

    Args:
        seeds: makes the valid files that it is tried with.
        read: gets an empty folder, and a file's name and content.
        clear: errors that the reader documents.
    """

    name: str
    seeds: Callable[[], Sequence[Seed]]
    read: Callable[[Path, Seed], None]
    clear: tuple[type[Exception], ...] = (MgrpoError,)


MODULES = {
    "recipes": "recipes",
    "overrides": "recipes",
    "data files": "data",
    "rollout records": "records",
    "run directories": "runs",
    "checkpoints": "checkpoints",
    "reward outputs": "rewards",
    "HTTP replies": "replies",
}
"""Where each target is. Modules are imported when their targets run: some need a second."""


def target_named(name: str) -> Target:
    module = import_module(f"tests.fuzz.targets.{MODULES[name]}")
    return next(one for one in module.TARGETS if one.name == name)
