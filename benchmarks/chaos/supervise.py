"""Runs one part of a campaign: starts the run, disturbs it, starts it again where it ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.chaos import clock, hostile
from benchmarks.chaos.comparison import accuracies, seconds_to_return, slopes, trained_in
from benchmarks.chaos.injectors import INJECTORS, Injector, Victim
from benchmarks.chaos.processes import (
    environment_of,
    kill_all,
    listening,
    memory_mib,
    orphans,
    shared_memory,
)
from benchmarks.chaos.proxy import Proxy, http_reward
from benchmarks.chaos.schedule import Fault, Part
from benchmarks.chaos.work import ATTEMPTS, NUM_HELDOUT, PROMPTS, RUN, write_recipe
from benchmarks.commands import end
from benchmarks.machine import REPOSITORY
from cluster.fleet.engine_log import read_engine_log
from mgrpo.errors import RunDirectoryError
from mgrpo.metrics.log import read_metrics

POLL_S = 0.2
USUAL_STEP_S = 1.5
"""Until a run has shown its own."""
RECOVERED_STEPS = 2
"""Steps after a fault's: by then a whole one lies after it."""
HANG_S = 400.0
"""Longest time without a step, over a restart; then the run is ended and started again."""
IDLE_LIVES = 3
"""Starts in a row without a step, after which a run is not started again."""
ORPHANS_S = 15.0
"""In which all of a run's processes have to be gone."""


@dataclass
class Event:
    """A fault that was done, and what came of it."""

    kind: str
    step: int
    at: float  # monotonic seconds
    done_to: str  # "": there was nothing to do it to
    ends: list[int] = field(default_factory=list)  # exit codes of the run until it had recovered
    seconds: float | None = None  # until it had recovered


@dataclass
class Life:
    """A run's command from its start to its end."""

    process: subprocess.Popen[bytes]
    log: Path
    memory: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def last_words(self) -> str:
        """The last line that tells something."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = [line for line in lines if line.startswith("error:")] or lines or [""]
        return said[-1][:400]


class Supervisor:
    """One run under faults."""

    def __init__(self, part: Part, folder: Path, temporary: Path, proxy: Proxy, seed: int) -> None:
        self.part, self.folder, self.proxy = part, folder, proxy
        self.run = f"{os.getpid()}-{part.name}"
        self.run_dir = folder / "runs" / RUN
        self.temporary, self.orders = temporary, folder / "orders"
        self.orders.mkdir(parents=True)
        self.recipe = write_recipe(
            folder, part.order, num_steps=part.num_steps, seed=seed, reward_url=proxy.url
        )
        self.victim = Victim(self.run, self.run_dir, self.orders, proxy)
        self.waiting = list(part.faults)
        self.events: list[Event] = []
        self.lasting: list[tuple[float, Injector, str]] = []
        self.lives: list[Life] = []
        self.exits: list[dict[str, Any]] = []
        self.hangs: list[str] = []
        self.leftover: list[str] = []
        self.ports: set[int] = set()
        self.shared: set[str] = set()
        self.step_times: list[float] = []
        self.num_steps, self.step_at = 0, time.monotonic()

    def supervise(self) -> bool:
        """Until the run has finished; False: it does not."""
        begun_at: list[int] = []
        while begun_at[-IDLE_LIVES:] != [self.num_steps] * IDLE_LIVES:
            begun_at.append(self.num_steps)
            life = self.start()
            try:
                code = self.watch(life)
            finally:
                end(life.process)
                self.end_all()
            left = orphans(self.run, within_s=ORPHANS_S)
            self.leftover += [f"start {len(self.lives)}, {code}: {title}" for title in left]
            self.ports |= listening(self.run)
            kill_all(self.run)
            self.exits.append({"code": code, "step": self.num_steps, "said": life.last_words()})
            if code == 0:
                return True
            for event in self.open_events():
                event.ends.append(code)
        return False

    def start(self) -> Life:
        log = self.folder / f"life-{len(self.lives)}.log"
        command = train_command(self.recipe)
        more = {
            hostile.ORDERS_VARIABLE: str(self.orders),
            "PYTHONPATH": str(REPOSITORY),
            **clock.environment(self.orders),
        }
        with log.open("wb") as said:
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=environment_of(self.run, self.temporary, more),
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        self.step_at = time.monotonic()
        self.lives.append(Life(process, log))
        return self.lives[-1]

    def watch(self, life: Life) -> int:
        """Disturb a command until it ends; returns its exit code."""
        while (code := life.process.poll()) is None:
            self.note_steps(life)
            self.end_lasting()
            self.inject_due()
            if time.monotonic() - self.step_at > HANG_S:
                self.hangs.append(f"step {self.num_steps} after {[e.kind for e in self.events]}")
                kill_all(self.run)
            time.sleep(POLL_S)
        self.note_steps(life)
        return code

    def note_steps(self, life: Life) -> None:
        """What has been done since the last look."""
        num_steps = steps_in(self.run_dir)
        if num_steps == self.num_steps:
            return
        now = time.monotonic()
        is_one_after_another = num_steps == self.num_steps + 1 and life.memory  # no start between
        if is_one_after_another and not self.open_events():
            self.step_times.append(now - self.step_at)
        self.num_steps, self.step_at = num_steps, now
        life.memory.append((num_steps, memory_mib(self.run)))
        self.shared |= shared_memory(self.run)
        for event in self.open_events():
            if num_steps >= event.step + RECOVERED_STEPS:
                event.seconds = now - event.at

    def open_events(self) -> list[Event]:
        return [one for one in self.events if one.seconds is None and one.done_to]

    def inject_due(self) -> None:
        """The next fault, if its moment has come: in its step, or by the beginning of the next."""
        if not self.waiting or self.num_steps < (fault := self.waiting[0]).step:
            return
        usual = median(self.step_times) if self.step_times else USUAL_STEP_S
        is_early = time.monotonic() - self.step_at < fault.moment * usual
        if self.num_steps > fault.step or not is_early:
            self.inject(self.waiting.pop(0))

    def inject(self, fault: Fault) -> None:
        injector = INJECTORS[fault.kind]
        done_to = injector.begin(self.victim, fault)
        now = time.monotonic()
        self.events.append(Event(fault.kind, self.num_steps, now, done_to))
        if injector.lasts_s and done_to:
            self.lasting.append((now + injector.lasts_s, injector, done_to))
        print(f"  step {self.num_steps}: {fault.kind}: {done_to or 'nothing there'}", flush=True)

    def end_lasting(self) -> None:
        for one in list(self.lasting):
            until, injector, done_to = one
            if time.monotonic() >= until:
                injector.end(self.victim, done_to)
                self.lasting.remove(one)

    def end_all(self) -> None:
        for _, injector, done_to in self.lasting:
            injector.end(self.victim, done_to)
        self.lasting.clear()

    def record(self, *, is_finished: bool) -> dict[str, Any]:
        """What the part came to."""
        files = [str(one) for one in self.temporary.rglob("*") if not one.is_dir()]
        longest = max(self.lives, key=lambda life: len(life.memory))
        return {
            "part": self.part.name,
            "order": self.part.order,
            "steps": self.part.num_steps,
            "is_finished": is_finished,
            "events": [asdict(one) for one in self.events],
            "not_done": [one.kind for one in self.waiting],
            "exits": self.exits,
            "hangs": self.hangs,
            "problems": asdict(trained_in(self.run_dir, self.recipe)),
            "orphans": self.leftover,
            "ports": sorted(self.ports),
            "files": [*files, *(one for one in sorted(self.shared) if Path(one).exists())],
            "engine_return_s": seconds_to_return(read_engine_log(self.run_dir)),
            "accuracy": accuracies(self.run_dir),
            "counted": {
                "training": self.part.num_steps * PROMPTS * ATTEMPTS,
                "held-out": NUM_HELDOUT,
            },
            "step_s": median(self.step_times) if self.step_times else None,
            "memory_slope_mib": slopes(longest.memory),
            "memory_steps": len(longest.memory),
        }


def train_command(recipe: Path) -> list[str]:
    return [sys.executable, "-m", "mgrpo", "train", str(recipe), "--run", RUN]


def steps_in(run_dir: Path) -> int:
    """Steps that a run has done, repeated ones counted once."""
    with suppress(RunDirectoryError):
        rows = read_metrics(run_dir)
        return int(rows[-1]["step"]) + 1 if rows else 0
    return 0


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """With a short name, since Ray's sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="c", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_part(part: Part, folder: Path, seed: int) -> dict[str, Any]:
    """One part from its beginning, in an empty folder; returns its record."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    with http_reward() as proxy, temporary_folder() as temporary:
        supervisor = Supervisor(part, folder, temporary, proxy, seed)
        is_finished = supervisor.supervise()
        record = supervisor.record(is_finished=is_finished)
    return record | {"seconds": time.monotonic() - began}
