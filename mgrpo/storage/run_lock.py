"""One run at a time in a folder: a lock that names its holder and ends with its process.

The lock is a file beside the run's folder, `.NAME.lock`, so that deleting the folder does not
release it. It has two parts:

    flock       the kernel releases it when the process ends, in any way. Network file
                systems mostly pass it on to all of their machines.
    heartbeat   for those that do not: the holder rewrites the file every 10 s. A process that
                finds a record of another machine watches it for 30 s, and takes the lock if it
                does not change.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mgrpo.errors import RunDirectoryError

HEARTBEAT_S = 10.0
WATCH_S = 30.0  # three heartbeats: one may come late
POLL_S = 1.0
NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # a file system without locks
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Holder:
    """The holder of a lock, as recorded in its file.

    Example:
        Holder(host="node17", machine="5c0e...", pid=4711, since="2026-11-28 10:15:02 +0000")
    """

    host: str
    machine: str  # the same for all containers of one machine, and for no other
    pid: int
    since: str

    @classmethod
    def this_process(cls) -> Holder:
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        return cls(os.uname().nodename, own_machine(), os.getpid(), since)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


def own_machine() -> str:
    with suppress(OSError):
        return BOOT_ID.read_text(encoding="ascii").strip()
    return os.uname().nodename


def lock_file(run_dir: Path) -> Path:
    """The file that is there while a run is active in the folder."""
    place = run_dir.resolve()
    return place.parent / f".{place.name}.lock"


@contextmanager
def run_lock(run_dir: Path, *, note: Callable[[str], None] = print) -> Iterator[None]:
    """Lock a run's folder for the duration of the context.

    The folder need not exist. Parent folders that are made for the lock's file are deleted with it
    if they are empty.

    Args:
        note: reports that a holder on another machine is being watched.

    Raises:
        RunDirectoryError: a run of this name is active, or the file cannot be written.
    """
    file, holder = lock_file(run_dir), Holder.this_process()
    made = [folder for folder in (file.parent, *file.parent.parents) if not folder.exists()]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = take(file, run_dir, holder, note)
    except OSError as error:
        raise RunDirectoryError(
            f"Cannot make the run's folder {run_dir}: {error.strerror} ({error.filename or file}). "
            "Set output.runs_dir to a place that can be written to."
        ) from error
    beating = Heartbeat(descriptor, holder)
    try:
        yield
    finally:
        beating.stop()
        file.unlink(missing_ok=True)  # before the lock is released: afterwards it may be another's
        os.close(descriptor)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def take(file: Path, run_dir: Path, own: Holder, note: Callable[[str], None]) -> int:
    """An open descriptor of the lock's file, locked and with our record in it."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            is_locked = try_flock(descriptor)
            if is_locked is False:
                raise RunDirectoryError(refusal(run_dir, holder_in(file)))
            if not is_still(file, descriptor):  # its holder has just removed it
                os.close(descriptor)
                continue
            holder = holder_in(file)
            # The record of an ended process on this machine: flock was free.
            is_over = holder is None or (is_locked and holder.machine == own_machine())
            if holder is not None and not is_over:
                watch(file, run_dir, holder, note)
            write_record(descriptor, own, 0)
            if is_locked is None:
                time.sleep(POLL_S)  # of several simultaneous writers the last one holds the lock
                if holder_in(file) != own:
                    raise RunDirectoryError(refusal(run_dir, holder_in(file)))
        except BaseException:
            with suppress(OSError):
                os.close(descriptor)
            raise
        return descriptor


def try_flock(descriptor: int) -> bool | None:
    """True: locked. False: another process has it. None: this file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_FLOCK:
            return None
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def is_still(file: Path, descriptor: int) -> bool:
    """Whether the open file is the one with this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def watch(file: Path, run_dir: Path, holder: Holder, note: Callable[[str], None]) -> None:
    """Return once the holder's heartbeat has been missing for long enough.

    Raises:
        RunDirectoryError: the holder is alive.
    """
    note(f"{run_dir} is locked by {holder}; watching its heartbeat for {WATCH_S:g} s")
    before = content(file)
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end:
        time.sleep(POLL_S)
        if content(file) != before:
            raise RunDirectoryError(refusal(run_dir, holder_in(file) or holder))


def refusal(run_dir: Path, holder: Holder | None) -> str:
    who = holder or "another process, which has just locked it"
    return (
        f"A run is active in {run_dir}: {who}. Wait for its end, stop it (Ctrl-C or SIGTERM; it "
        "leaves a checkpoint), or give this run another name (--run NAME)."
    )


def content(file: Path) -> str:
    # Opened again each time, which makes a network file system ask its server.
    with suppress(OSError):
        return file.read_text(encoding="utf-8", errors="replace")
    return ""


def holder_in(file: Path) -> Holder | None:
    """The holder that the file names; None if the file is unreadable."""
    try:
        record = json.loads(content(file))
        return Holder(**{name: record[name] for name in Holder.__dataclass_fields__})
    except (ValueError, TypeError, KeyError):
        return None


def write_record(descriptor: int, holder: Holder, num_beats: int) -> None:
    text = json.dumps({**asdict(holder), "beats": num_beats}) + "\n"
    os.ftruncate(descriptor, os.pwrite(descriptor, text.encode(), 0))
    os.fsync(descriptor)


class Heartbeat:
    """Rewrites a lock's record until it is stopped."""

    def __init__(self, descriptor: int, holder: Holder) -> None:
        self.descriptor, self.holder = descriptor, holder
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.beat, name="run-lock", daemon=True)
        self.thread.start()

    def beat(self) -> None:
        num_beats = 0
        while not self.is_over.wait(HEARTBEAT_S):
            num_beats += 1
            with suppress(OSError):  # a full disk: flock still holds
                write_record(self.descriptor, self.holder, num_beats)

    def stop(self) -> None:
        self.is_over.set()
        self.thread.join(HEARTBEAT_S)
