"""Checkpoints of a run: their times, their content besides the learner's state, and the resume."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgrpo.config.run import CheckpointConfig
from mgrpo.errors import MgrpoError, RunDirectoryError
from mgrpo.storage.checkpoints import (
    LEARNER_DIR,
    begin_checkpoint,
    fingerprint,
    finish_checkpoint,
    keep_newest,
    read_state,
)
from mgrpo.storage.mirror import Mirror
from mgrpo.training.hooks import Hook, StepDone
from mgrpo.training.learner_ranks import Learner
from mgrpo.training.progress import TrainProgress
from mgrpo.training.sources.sample_ahead import (
    Drawn,
    SampleAhead,
    read_completions,
    write_completions,
)
from mgrpo.training.stop_signals import StopSignals
from mgrpo.training.workers import RunWorkers
from mgrpo.types import Problem

SOURCES = "sources"


class RunState(Hook):
    """The state for a resume besides the learner's own, as of the last complete step.

    Once it is recorded, a step is complete: from then on a signal may end the run.
    """

    def __init__(
        self,
        workers: RunWorkers,
        sources: SampleAhead,
        problems: Sequence[Problem],
        signals: StopSignals,
    ) -> None:
        self.workers, self.sources, self.signals = workers, sources, signals
        self.problems_fingerprint = fingerprint(problems)
        self.keep(self.state_dict(0))

    def after_step(self, done: StepDone) -> None:
        self.keep(self.state_dict(done.num_done))
        self.signals.release()

    def keep(self, state: dict[str, Any]) -> None:
        """From now on this is what a checkpoint has."""
        self.latest = state
        self.latest_drawn: Sequence[Drawn] = self.sources.collected()

    def write_files(self, folder: Path) -> None:
        """What of the latest state is too large for `state.json`."""
        write_completions(self.latest_drawn, folder)

    def state_dict(self, num_steps: int) -> dict[str, Any]:
        """The state after `num_steps` steps, as plain values."""
        return {
            "num_steps": num_steps,
            "problems": self.problems_fingerprint,
            "policy_version": self.workers.policy_version,
            SOURCES: self.sources.state_dict(),
        }

    def load(self, folder: Path) -> int:
        """Continue from a checkpoint, whose state the learner has loaded; returns steps done."""
        state = read_state(folder)
        if self.workers.policy_version != state["policy_version"]:
            raise RunDirectoryError(
                f"The checkpoint's learner is at policy version {self.workers.policy_version}, its "
                f"state at {state['policy_version']}: the two come from different steps, and the "
                "checkpoint is inconsistent. Delete it to resume from the one before."
            )
        # Up to version 0.1 the sources' states lay beside the other values, under the same names.
        self.sources.load_state_dict(state.get(SOURCES, state))
        self.sources.drawn = deque(read_completions(self.sources.drawn, folder))
        self.keep(state)
        num_steps: int = state["num_steps"]
        return num_steps


class Checkpoints(Hook):
    """Writes checkpoints after every so many steps, and when a signal ends the run."""

    def __init__(
        self,
        run_dir: Path,
        config: CheckpointConfig,
        *,
        num_steps: int,
        state: RunState,
        learner: Learner,
        mirror: Mirror,
        progress: TrainProgress,
        signals: StopSignals,
    ) -> None:
        """
        Args:
            num_steps: of the whole run.
            state: remembers the last whole step; a hook that comes before this one.
            mirror: copies finished checkpoints to shared storage.
        """
        self.run_dir, self.config, self.num_steps = run_dir, config, num_steps
        self.state, self.learner, self.mirror = state, learner, mirror
        self.progress, self.signals = progress, signals
        self.is_saving = False  # a checkpoint is half written

    def after_step(self, done: StepDone) -> None:
        if self.is_due(done.num_done):
            self.save()

    def is_due(self, num_done: int) -> bool:
        every = self.config.every_steps
        # Also after the last step: a run can then be made longer.
        return every > 0 and (num_done % every == 0 or num_done == self.num_steps)

    def save(self, deadline_s: float | None = None) -> Path | None:
        """Write a checkpoint of the last complete step; None if the learner has updated since.

        Args:
            deadline_s: what a signal leaves; None for the usual deadline.
        """
        if deadline_s is None:
            self.mirror.settle()  # for the one before, before its files are deleted here
        self.signals.hold(self.config.on_signal_s)
        self.is_saving = True
        self.progress.phase("writing a checkpoint")
        state = self.state.latest
        folder = begin_checkpoint(self.run_dir, state["num_steps"])
        finished = None
        try:
            is_saved = self.learner.save_states(
                folder / LEARNER_DIR, state["policy_version"], deadline_s=deadline_s
            )
            if is_saved:
                self.state.write_files(folder)
                finished = finish_checkpoint(folder, state)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # half a one may be what fills the disk
        if finished is not None:
            keep_newest(self.run_dir, self.config.keep)
            self.mirror.checkpoint(finished, deadline_s)
        self.is_saving = False
        self.signals.release()
        return finished

    def save_on_signal(self) -> None:
        """Write a checkpoint of the last complete step if a signal ends the run."""
        if self.is_saving:
            self.progress.warn(
                "the checkpoint was not finished within "
                f"checkpoints.on_signal_s ({self.config.on_signal_s:g} s)"
            )
            return
        if self.state.latest["num_steps"] == 0:
            return
        try:
            folder = self.save(self.config.on_signal_s)
        except (MgrpoError, OSError) as error:  # the signal is what ends the run, not this
            self.progress.warn(f"no checkpoint was written: {error}")
            return
        if folder is not None:
            self.progress.note(f"checkpoint: {folder}; the same command resumes from it")
