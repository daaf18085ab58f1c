"""A run without progress leaves a record of where each of its processes is.

A thread of the driver looks at the run's board, which every phase, token, request and pass of the
learner changes. It has no part in the run: a dump is made while everything else hangs.
"""

from __future__ import annotations

import asyncio
import faulthandler
import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from cluster.fleet.fleet import Fleet
from cluster.progress_board import Progress, ProgressBoard
from cluster.stacks import stacks_of_run
from mgrpo.config.cluster import WatchdogConfig
from mgrpo.training.progress import TrainProgress
from mgrpo.training.system import System

HANGS_DIR = "hangs"
SUMMARY, DRIVER = "summary.txt", "driver.txt"
LOOK_S = 5.0
JOIN_S = 1.0
TOKENS_SHOWN = 8


class Quiet:
    """Seconds without progress.

    Example: looks at 0, 5, 10, 15 s, progress between the first two alone: 10 s.
    """

    def __init__(self, board: Progress) -> None:
        self.last, self.seconds = board, 0.0
        self.was_said = False

    def look(self, board: Progress, passed_s: float, after_s: float) -> bool:
        """Whether there has been none for `after_s`; true once for each such time."""
        if board.is_after(self.last):
            self.last, self.seconds, self.was_said = board, 0.0, False
            return False
        self.seconds += passed_s
        is_new = self.seconds >= after_s and not self.was_said
        self.was_said |= is_new
        return is_new


class Watchdog:
    """Looks at a board until it is told to end.

    Args:
        board: the run's.
        after_s: longest time without progress.
        on_hang: called with those seconds, in the watchdog's thread.
    """

    def __init__(
        self, board: ProgressBoard, *, after_s: float, on_hang: Callable[[float], None]
    ) -> None:
        self.board, self.after_s, self.on_hang = board, after_s, on_hang
        self.look_s = min(LOOK_S, after_s / 4)
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.run, name="watchdog", daemon=True)

    def run(self) -> None:
        quiet, looked_at = Quiet(self.board.read()), time.monotonic()
        while not self.is_over.wait(self.look_s):
            # A machine that slept has waited no longer than the thread looked.
            passed_s, looked_at = time.monotonic() - looked_at, time.monotonic()
            passed_s = min(passed_s, 2 * self.look_s)
            if quiet.look(self.board.read(), passed_s, self.after_s):
                self.on_hang(quiet.seconds)

    def end(self) -> None:
        self.is_over.set()
        self.thread.join(JOIN_S)


@contextmanager
def watchdog_of(system: System, run_dir: Path, progress: TrainProgress) -> Iterator[None]:
    """Watch a run while its system is up."""
    config = system.config.cluster.watchdog

    def on_hang(seconds: float) -> None:
        folder = run_dir / HANGS_DIR / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        try:
            write_dump(folder, system, progress.board, seconds)
            progress.warn(hang_sentence(seconds, folder, config))
        except Exception as error:  # the record is of less use than the run
            progress.warn(f"no progress for {seconds:.0f} s, and no record of it: {error!r}")
        if config.action == "checkpoint_and_stop":
            os.kill(os.getpid(), signal.SIGTERM)

    watchdog = Watchdog(progress.board, after_s=config.after_s, on_hang=on_hang)
    watchdog.thread.start()
    try:
        yield
    finally:
        watchdog.end()


def hang_sentence(seconds: float, folder: Path, config: WatchdogConfig) -> str:
    then = "" if config.action == "warn" else "; the run ends with a checkpoint of its last step"
    return (
        f"no progress for {seconds:.0f} s (cluster.watchdog.after_s): where each process is, is in "
        f"{folder}{then}"
    )


def write_dump(folder: Path, system: System, board: ProgressBoard, seconds: float) -> None:
    """What is known of a run that hangs: first what this process knows, then the others."""
    folder.mkdir(parents=True)
    lines = [
        f"No progress for {seconds:.0f} s. The last: {board.doing}.",
        "",
        *fleet_lines(system.fleet),
    ]
    if system.processes is not None:
        lines += ["", f"The learner's ranks: {system.processes.progress.said()}"]
    (folder / SUMMARY).write_text("\n".join(lines) + "\n", encoding="utf-8")
    with (folder / DRIVER).open("w", encoding="utf-8") as opened:
        faulthandler.dump_traceback(opened, all_threads=True)
        opened.write("\n" + sampling_stacks(system.fleet))
    for name, text in stacks_of_run(system.run_id):
        file = folder / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def fleet_lines(fleet: Fleet) -> Iterator[str]:
    """Engines' states, queues and the prompts that are being sampled."""
    for pool in fleet.pools:
        yield f"{pool.name}: {fleet.waiting[pool.name]} requests wait for an engine"
    now = time.monotonic()
    for engine in fleet.engines:
        state_s = now - engine.health.since
        words = f", last lost: {engine.last_words}" if engine.last_words else ""
        yield f"{engine.name}: {engine.state} for {state_s:.0f} s{words}"
        worker = fleet.workers.get(engine.name)
        watch = None if worker is None else worker.watch
        if worker is None or watch is None:
            continue
        yield f"  {worker.num_inflight} completions in flight"
        for prompt in list(watch.requests.values()):
            tokens = prompt.token_ids
            yield f"  a prompt of {len(tokens)} tokens: {tokens[:TOKENS_SHOWN].tolist()} …"


def sampling_stacks(fleet: Fleet) -> str:
    """Where the tasks of the driver's event loop are."""
    text = io.StringIO()
    with suppress(RuntimeError):  # the loop was closed meanwhile
        for task in asyncio.all_tasks(fleet.loop.runner.get_loop()):
            task.print_stack(file=text)
    return text.getvalue()
