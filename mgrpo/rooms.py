"""The rooms' names stay ours, whatever lies in the current folder.

`python -m` and Ray put the current folder first on the path of modules, and a file rewards.py there
would be imported in place of our package. Users do call their files so.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

ROOMS = ("mgrpo", "actors", "learner", "rewards", "cluster")
ROOT = Path(__file__).resolve().parent.parent


class Rooms:
    """A finder of modules that knows our packages, and nothing else."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [str(ROOT)]) if name in ROOMS else None


def keep_rooms() -> None:
    """Have this process find our packages where this one lies."""
    if Rooms not in sys.meta_path:
        sys.meta_path.insert(0, Rooms)


def call_in_rooms(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function of a room in a new process, which has to import this module to do so."""
    function(*arguments)


def current_folder_last() -> None:
    """Have what is installed come before files of the current folder, whatever they are called."""
    here = str(Path.cwd())
    if here in sys.path and Path(here) != ROOT:
        sys.path.remove(here)
        sys.path.append(here)


class CurrentFolderLast:
    """Finds nothing; puts the current folder last when one of our packages is asked for."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        if name in ROOMS:
            current_folder_last()


def prepare_ray_worker() -> None:
    """What a new worker of Ray calls, for the processes that it starts in turn, such as vLLM's.

    They take over the path of modules. Ray puts the current folder first, and does so only after
    this call, with the first task.
    """
    sys.meta_path.insert(0, CurrentFolderLast)
