"""The pool's side of a reward process: it ends with all that checks have started in it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from multiprocessing.context import SpawnContext, SpawnProcess

import psutil

END_PATIENCE_S = 5.0


class ContainedProcess(SpawnProcess):
    """What ends it ends all that it has started."""

    def terminate(self) -> None:
        if self.pid is not None:
            end_tree(self.pid)

    def __reduce__(self) -> tuple[object, ...]:
        # As it is sent to the process itself, which may not import this program yet: see
        # `mgrpo.rooms.call_in_rooms`.
        return SpawnProcess, (), self.__dict__


class ContainedContext(SpawnContext):
    """`multiprocessing.get_context("spawn")` with such processes."""

    Process = ContainedProcess


def end_tree(pid: int) -> None:
    """Kill a reward process and all below it. It is stopped first, so that it starts nothing more
    and goes on adopting, and killed last."""
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        root.suspend()
        end = time.monotonic() + END_PATIENCE_S
        while (below := running(root.children(recursive=True))) and time.monotonic() < end:
            for stop in (signal.SIGSTOP, signal.SIGKILL):  # of a fork bomb all, before one is gone
                for process in below:
                    with contextlib.suppress(psutil.Error):
                        process.send_signal(stop)
        root.kill()


def running(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                found.append(process)
    return found


def end_session(pid: int) -> None:
    """Kill what a reward process that has died left in its session."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == pid:
                process.kill()
