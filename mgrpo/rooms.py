"""Protects our packages' names from files in the current folder.

`python -m` and Ray put the current folder first on the path of modules, and a file rewards.py there
would be imported in place of our package. Users do have files of such names.
"""

import faulthandler
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Protocol

ROOMS = ("mgrpo", "actors", "learner", "rewards", "cluster")
ROOT = Path(__file__).resolve().parent.parent
PRIVATE_VARIABLES = "MGRPO_PRIVATE_VARIABLES"
"""In the environment of a worker: the names of those that it takes; see
`cluster.private_variables`."""
LOOK_S = 1.0
"""Between two looks at whether a worker's raylet is there."""
STACK_SIGNAL = signal.SIGUSR2
"""By it a process of ours writes the Python stacks of its threads to its log."""


class Rooms:
    """A finder of modules for our packages only."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [str(ROOT)]) if name in ROOMS else None


def keep_rooms() -> None:
    """Make this process find our packages beside this one."""
    if Rooms not in sys.meta_path:
        sys.meta_path.insert(0, Rooms)


def call_in_rooms(function: Callable[..., None], *arguments: object) -> None:
    """Call a function of a room in a new process, which has to import this module to do so."""
    function(*arguments)


def current_folder_last() -> None:
    """Give installed packages precedence over files in the current folder."""
    here = str(Path.cwd())
    if here in sys.path and Path(here) != ROOT:
        sys.path.remove(here)
        sys.path.append(here)


class CurrentFolderLast:
    """Finds nothing; puts the current folder last when one of our packages is imported."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        if name in ROOMS:
            current_folder_last()


def prepare_ray_worker() -> None:
    """The set-up hook of Ray's workers, for their child processes, such as vLLM's.

    They inherit sys.path. Ray puts the current folder first, but only after this call, with the
    first task.
    """
    write_stacks_on_signal()
    own_ray = importlib.import_module("cluster.own_ray")  # by its name, as below
    end_with_parent(own_ray.agents_of(os.getppid()))
    sys.meta_path.insert(0, CurrentFolderLast)
    if os.environ.get(PRIVATE_VARIABLES):  # that room is above this one
        importlib.import_module("cluster.private_variables").take_over()


class Killable(Protocol):
    """A process, as psutil has it, for which this module would be slow to import."""

    def kill(self) -> None: ...


def end_with_parent(others: Sequence[Killable] = ()) -> None:
    """End this process when the one that has started it does, and its group if it leads one.

    Args:
        others: what is ended then, too.

    A worker of Ray does: to the group belong its children, such as vLLM's processes, also those
    that are still starting. Ray looks for a worker's raylet, too, by a timer that runs by dates:
    where the clock was set back by an hour, its workers outlive their raylet by an hour.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_S)
        for other in others:
            with suppress(Exception):  # it has ended
                other.kill()
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def write_stacks_on_signal() -> None:
    """On `STACK_SIGNAL` this process writes where its threads are; see `cluster.stacks`."""
    if sys.__stderr__ is not None:
        faulthandler.register(STACK_SIGNAL, file=sys.__stderr__, all_threads=True)
