"""A copy of the run after its last step, in memory, for a learner that is lost."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType

from cluster.left_over import private_folder
from mgrpo.errors import RunDirectoryError
from mgrpo.storage.checkpoints import LEARNER_DIR, STATE_FILE
from mgrpo.training.checkpoints import RunState
from mgrpo.training.hooks import Hook, StepDone
from mgrpo.training.learner_ranks import Learner
from mgrpo.training.progress import TrainProgress

PREFIX = "mgrpo-last-step-"
MUCH = 0.1
"""Of a run's time: where copies take more, that is said."""
ROOM = 0.5
"""Of the free memory that the copies may take."""
COPIES = 2
"""The one before is kept until the next is whole."""


def memory_folder() -> Path:
    """A folder in memory, where the system has one."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


class LastStep:
    """Has the form of a checkpoint, without a manifest. A context: it is deleted at the end.

    Args:
        share: the largest of a run's time that copies may take (checkpoints.memory_copy_share).
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.newest: Path | None = None
        self.seconds, self.ended = 0.0, -float("inf")
        self.share_taken = 0.0  # of the time from the end of the last but one to that of the last

    def __enter__(self) -> LastStep:
        self.root = private_folder(memory_folder(), PREFIX)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def is_due(self) -> bool:
        """Whether copying now keeps to its share of the time."""
        if self.share == 0:
            return False
        return time.monotonic() - self.ended >= self.seconds * (1 / self.share - 1)

    @property
    def free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free

    def write(self, state: RunState, learner: Learner) -> None:
        """Copy the last whole step, unless the learner has made an update since."""
        began, latest = time.monotonic(), state.latest
        folder = self.root / f"step-{latest['num_steps']:06d}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        version, is_whole = latest["policy_version"], False
        try:
            if not learner.save_states(
                folder / LEARNER_DIR, version, deadline_s=None, is_run_folder=False
            ):
                return
            state.write_files(folder)
            (folder / STATE_FILE).write_text(json.dumps(latest), encoding="utf-8")
            is_whole = True
        finally:
            if not is_whole:
                shutil.rmtree(folder, ignore_errors=True)
        before, self.newest = self.newest, folder
        if before is not None and before != folder:
            shutil.rmtree(before)
        ended_before, self.ended = self.ended, time.monotonic()
        self.seconds = self.ended - began
        self.share_taken = self.seconds / (self.ended - ended_before)


class KeepLastStep(Hook):
    """Copies each step, or fewer where that would take too much of the time or of the memory.

    Args:
        state: of the last whole step; a hook that comes before this one.
        restarts: of the learner so far.
    """

    def __init__(
        self,
        copy: LastStep,
        *,
        state: RunState,
        learner: Learner,
        restarts: int,
        progress: TrainProgress,
    ) -> None:
        self.copy, self.state, self.learner, self.progress = copy, state, learner, progress
        self.restarts = restarts
        self.is_said = False

    def before_run(self, first_step: int) -> None:
        needed = COPIES * self.learner.state_bytes()
        if self.copy.share and needed > ROOM * self.copy.free_bytes:
            self.progress.note(
                f"no copies of the last step: two would take {needed / 2**30:.3g} GiB of the "
                f"{self.copy.free_bytes / 2**30:.3g} free in {self.copy.root.parent}. A learner "
                "that is lost then goes on from the newest checkpoint"
            )
            self.copy.share = 0

    def measure(self, done: StepDone) -> None:
        done.sums.add_total("learner/restarts", self.restarts)

    def after_step(self, done: StepDone) -> None:
        if not self.copy.is_due:
            return
        try:
            self.copy.write(self.state, self.learner)
        except (RunDirectoryError, OSError) as error:
            self.progress.warn(
                f"step {done.step} could not be copied: {error}. There will be no more copies; a "
                "learner that is lost goes on from the one before, or the newest checkpoint"
            )
            self.copy.share = 0
        if self.copy.share_taken > MUCH and not self.is_said:
            self.is_said = True
            self.progress.note(
                f"copies of the last step take {self.copy.share_taken:.0%} of the time "
                f"({self.copy.seconds:.2g} s each): a lost learner repeats one step at most. With "
                f"checkpoints.memory_copy_share={MUCH:g} fewer steps are copied"
            )
