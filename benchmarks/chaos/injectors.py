"""What does each kind of fault to a run, and takes it back where it does not last."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from benchmarks.chaos import clock, hostile
from benchmarks.chaos.processes import of_kind
from benchmarks.chaos.proxy import Mode, Proxy
from benchmarks.chaos.schedule import HOUR_S, Fault
from mgrpo.storage.checkpoints import CHECKPOINTS_DIR, LEARNER_DIR, checkpoints

PAUSE_S = 2.0
DISK_KIB = 64
"""Of a disk that is full: less than a checkpoint."""


@dataclass(frozen=True, slots=True)
class Victim:
    """What a fault can get hold of."""

    run: str  # the mark of its processes
    run_dir: Path
    orders: Path
    proxy: Proxy


class Injector(Protocol):
    """One kind of fault."""

    @property
    def lasts_s(self) -> float:
        """Seconds until `end` is called; 0: it is not."""
        ...

    def begin(self, victim: Victim, fault: Fault) -> str:
        """Do it; returns what it was done to, "" if there was nothing."""
        ...

    def end(self, victim: Victim, done_to: str) -> None:
        """Take it back from what `begin` has named."""
        ...


@dataclass(frozen=True)
class Signalled:
    """A signal to one process of a kind."""

    kind: str
    number: signal.Signals
    lasts_s: float = 0.0

    def begin(self, victim: Victim, fault: Fault) -> str:
        found = of_kind(victim.run, self.kind)
        if not found:
            return ""
        process = found[fault.choice % len(found)]
        with suppress(psutil.Error):
            process.send_signal(self.number)
        return f"process {process.pid}"

    def end(self, victim: Victim, done_to: str) -> None:
        with suppress(ProcessLookupError):
            os.kill(int(done_to.rpartition(" ")[2]), signal.SIGCONT)


@dataclass(frozen=True)
class Disturbed:
    """The connections of the HTTP reward."""

    mode: Mode
    lasts_s: float = 6.0

    def begin(self, victim: Victim, fault: Fault) -> str:
        victim.proxy.mode = self.mode
        return f"connections of {victim.proxy.url}"

    def end(self, victim: Victim, done_to: str) -> None:
        victim.proxy.mode = "through"


@dataclass(frozen=True)
class Mounted:
    """Another disk in the place of the checkpoints' folder."""

    is_full: bool  # else it cannot be written to
    lasts_s: float = 12.0

    def begin(self, victim: Victim, fault: Fault) -> str:
        folder = str(victim.run_dir / CHECKPOINTS_DIR)
        if not Path(folder).is_dir():
            return ""
        if self.is_full:
            mount("-t", "tmpfs", "-o", f"size={DISK_KIB}k", "tmpfs", folder)
        else:
            mount("--bind", folder, folder)
            mount("-o", "remount,ro,bind", folder)
        return folder

    def end(self, victim: Victim, done_to: str) -> None:
        unmount(victim.run_dir / CHECKPOINTS_DIR)


def unmount(folder: Path) -> None:
    """Take back all that is mounted there."""
    while is_mounted(folder):
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=20)


def is_mounted(folder: Path) -> bool:
    """Also where it is a part of the same disk, which `Path.is_mount` does not see."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return any(line.split()[1] == str(folder.resolve()) for line in lines)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, timeout=20, capture_output=True)


@dataclass(frozen=True)
class Damaged:
    """A byte of the newest checkpoint, then the driver's end."""

    lasts_s: float = 0.0

    def begin(self, victim: Victim, fault: Fault) -> str:
        unmount(victim.run_dir / CHECKPOINTS_DIR)  # an earlier fault may last
        found = checkpoints(victim.run_dir)
        if len(found) < 2:
            return ""  # there is none to fall back to
        Signalled("driver", signal.SIGKILL).begin(victim, fault)
        files = sorted(one for one in (found[-1] / LEARNER_DIR).iterdir() if one.is_file())
        file = files[fault.choice % len(files)]
        content = bytearray(file.read_bytes())
        content[fault.choice % len(content)] ^= 1
        file.write_bytes(content)
        return f"{found[-1].name}/{file.name}"

    def end(self, victim: Victim, done_to: str) -> None:
        """It lasts."""


@dataclass(frozen=True)
class Jumped:
    """The clock of all processes of the run."""

    by_s: int
    lasts_s: float = 0.0

    def begin(self, victim: Victim, fault: Fault) -> str:
        return clock.jump(victim.orders, self.by_s)

    def end(self, victim: Victim, done_to: str) -> None:
        """It stays there."""


@dataclass(frozen=True)
class Ordered:
    """Something that the run does to itself (`hostile.py`)."""

    order: str
    lasts_s: float = 0.0

    def begin(self, victim: Victim, fault: Fault) -> str:
        hostile.give_order(victim.orders, self.order)
        return self.order

    def end(self, victim: Victim, done_to: str) -> None:
        """It happens once."""


def signalled(kind: str, *endings: str) -> dict[str, Injector]:
    """Injectors of signals to one kind of process, by the fault's name."""
    by_ending: dict[str, Injector] = {
        "killed": Signalled(kind, signal.SIGKILL),
        "stopped": Signalled(kind, signal.SIGSTOP),
        "paused": Signalled(kind, signal.SIGSTOP, lasts_s=PAUSE_S),
        "told to stop": Signalled(kind, signal.SIGTERM),
    }
    return {f"{kind} {ending}": by_ending[ending] for ending in endings}


INJECTORS: Mapping[str, Injector] = {
    **signalled("engine actor", "killed", "stopped", "paused"),
    **signalled("EngineCore", "killed", "stopped", "paused"),
    **signalled("learner rank", "killed", "stopped", "paused"),
    **signalled("reward process", "killed", "stopped"),
    **signalled("driver", "killed", "told to stop", "paused"),
    **signalled("raylet", "killed"),
    **signalled("GCS", "killed"),
    "HTTP reward slow": Disturbed("slow"),
    "HTTP reward cut": Disturbed("cut"),
    "HTTP reward refused": Disturbed("refused"),
    "checkpoints read-only": Mounted(is_full=False),
    "checkpoints full": Mounted(is_full=True),
    "newest checkpoint damaged": Damaged(),
    "clock set an hour ahead": Jumped(HOUR_S),
    "clock set an hour back": Jumped(-HOUR_S),
    "weights spoiled on the way": Ordered(hostile.ARRIVING),
    "weights spoiled in the engine": Ordered(hostile.LOADED),
    "log-probabilities not finite": Ordered(hostile.NOT_FINITE),
    "log-probabilities shifted": Ordered(hostile.SHIFTED),
}
"""By the names of `schedule.KINDS`."""
