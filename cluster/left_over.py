"""Folders and semaphores of processes that were killed, and processes that still use them.

A run deletes its own at its end. One that was ended by SIGKILL or with its machine cannot; the next
run on this machine does it. What does not say that it is ours, and whose, stays.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import platform
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

OURS = "mgrpo-"
OWNER_FILE = "owner"
WAIT_S = 5.0
SEMAPHORES = Path("/dev/shm")
SEMAPHORE_PREFIX = "mgrpo"


def private_folder(place: Path, prefix: str) -> Path:
    """A new folder that only this user reads, after deleting those of processes that are gone.

    Args:
        place: where it is made.
        prefix: of its name, which begins with `OURS`.
    """
    assert prefix.startswith(OURS), prefix
    remove_left_over(place, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    mark_owner(folder)
    return folder


def folders_of(pids: Collection[int], places: Iterable[Path]) -> Iterator[Path]:
    """What these processes have made there by `private_folder`, and not deleted."""
    for file in (file for place in places for file in place.glob(f"{OURS}*/{OWNER_FILE}")):
        with suppress(OSError, ValueError, psutil.Error):  # another user's, or deleted meanwhile
            owner = file.read_text(encoding="utf-8")
            _, pid, _ = owner.rsplit(" ", 2)
            if int(pid) in pids and owner_of(psutil.Process(int(pid))) == owner:
                yield file.parent


def name_semaphores() -> None:
    """Give the semaphores of this process, and of those that `multiprocessing` starts from it,
    names that say whose they are; delete those of processes that are gone.

    Python deletes a process's semaphores at its end, but not where its resource tracker is killed
    with it. It has no public way to name them.
    """
    for file in SEMAPHORES.glob(f"sem.{SEMAPHORE_PREFIX}-*"):
        if is_ownerless(file):
            with suppress(OSError):
                file.unlink()
    here = multiprocessing.current_process()
    prefix = f"{SEMAPHORE_PREFIX}-{'-'.join(label_of(psutil.Process()))}"
    here._config["semprefix"] = f"/{prefix}"  # type: ignore[attr-defined]


def label_of(process: psutil.Process) -> tuple[str, str, str]:
    """`owner_of` in the characters of a semaphore's name: machine, process, time of its start."""
    where = hashlib.sha256(machine().encode()).hexdigest()[:12]
    return where, str(process.pid), start_of(process)


def is_ownerless(semaphore: Path) -> bool:
    """Whether it is of this user and machine and its process is gone."""
    try:
        _, where, pid, start, _ = semaphore.name.split("-", 4)
        if semaphore.lstat().st_uid != os.getuid() or not pid.isdecimal():
            return False
        own, *_ = label_of(psutil.Process())
        return where == own and label_of(psutil.Process(int(pid))) != (where, pid, start)
    except psutil.NoSuchProcess:
        return True
    except (OSError, ValueError, psutil.Error):
        return False


def mark_owner(folder: Path) -> None:
    """Say in a folder which process uses it."""
    (folder / OWNER_FILE).write_text(owner_of(psutil.Process()), encoding="utf-8")


def owner_of(process: psutil.Process) -> str:
    """A process, told from every other of all machines and containers that share a folder."""
    return f"{machine()} {process.pid} {start_of(process)}"


def start_of(process: psutil.Process) -> str:
    """When a process started: which start of the machine, and ticks since then.

    A date (`psutil.Process.create_time`) would change for a living process when the machine's
    clock is set.

    Raises:
        psutil.NoSuchProcess: it is gone.
    """
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(process.pid) from None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    ticks = stat.rpartition(")")[2].split()[19]  # field 22; the second one may hold anything
    return f"{boot}.{ticks}"


def machine() -> str:
    """This host and its space of process ids, which a container has for itself."""
    with suppress(OSError):
        return f"{platform.node()}:{Path('/proc/self/ns/pid').readlink()}"
    return platform.node()


def remove_left_over(place: Path, prefix: str) -> list[Path]:
    """Delete the marked folders of this user whose process is gone, and end what still uses them.

    Args:
        place: where they are.
        prefix: of their names.
    """
    found = [folder for folder in place.glob(f"{prefix}*") if is_left_over(folder)]
    for folder in found:
        for process in users_of(folder):
            with suppress(psutil.Error):
                process.kill()
                process.wait(WAIT_S)
        shutil.rmtree(folder, ignore_errors=True)
    return found


def is_left_over(folder: Path) -> bool:
    """Whether its owner ran on this machine and is gone; False where nobody is named."""
    try:
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return False
        host, pid, _ = (owner := (folder / OWNER_FILE).read_text(encoding="utf-8")).rsplit(" ", 2)
    except (OSError, ValueError):
        return False
    if host != machine() or not pid.isdecimal():
        return False
    try:
        return owner_of(psutil.Process(int(pid))) != owner
    except psutil.NoSuchProcess:
        return True


def users_of(folder: Path) -> Iterator[psutil.Process]:
    """This user's processes of Ray that have a file open there, or are told of it."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.uids().real == os.getuid() and is_rays(words := process.cmdline()):
                files = [opened.path for opened in process.open_files()]
                if any(str(folder) in text for text in (*words, *files)):
                    yield process


def is_rays(command: list[str]) -> bool:
    """Whether a command is one of Ray's programs, or has the name that Ray gives its workers."""
    return any(word.startswith("ray::") or "/ray/" in word for word in command[:4])
