"""Checkpoints of a run: their times, their content besides the learner's state, and the resume."""

from __future__ import annotations

import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cluster.progress_board import LOOK_S, Counter, OwnBytes, Patience
from mgrpo.config.run import CheckpointConfig
from mgrpo.errors import DeadlineError, MgrpoError, RunDirectoryError
from mgrpo.records.json_object import JsonObject
from mgrpo.storage.checkpoints import (
    LEARNER_DIR,
    begin_checkpoint,
    checkpoint_dir,
    checkpoints,
    fingerprint,
    finish_checkpoint,
    read_state,
    remove_unfinished,
    tidy,
)
from mgrpo.storage.mirror import Mirror
from mgrpo.storage.policies import BestRecord, best_record, write_best
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

    def keep(self, state: JsonObject) -> None:
        """From now on this is what a checkpoint has."""
        self.latest = state
        self.latest_drawn: Sequence[Drawn] = self.sources.collected()

    def write_files(self, folder: Path) -> None:
        """What of the latest state is too large for `state.json`."""
        write_completions(self.latest_drawn, folder)

    def state_dict(self, num_steps: int) -> JsonObject:
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
        version = state.get("policy_version")
        if self.workers.policy_version != version:
            raise RunDirectoryError(
                f"The checkpoint's learner is at policy version {self.workers.policy_version}, its "
                f"state at {version}: the two come from different steps, and the "
                "checkpoint is inconsistent. Delete it to resume from the one before."
            )
        try:
            self.sources.load_state_dict(state[SOURCES])
            self.sources.drawn = deque(read_completions(self.sources.drawn, folder))
        except MgrpoError:
            raise
        except Exception as error:  # each source reads its own state, a user's too
            raise RunDirectoryError(
                f"{folder} has the state of a source in a form that this version of mgrpo does not "
                f"read ({type(error).__name__}: {error}). Resume with the version that wrote it, "
                "or delete the checkpoint to resume from the one before."
            ) from error
        self.keep(state)
        num_steps: int = state["num_steps"]
        return num_steps


class Checkpoints(Hook):
    """Writes checkpoints after every so many steps, after the best one if that is wanted, and when
    a signal ends the run.

    A step waits until the learner's state is in files. A thread hashes them and names the
    checkpoint while the next steps run. Until then the one before is the newest. A disk that is
    full, slow or read-only costs the checkpoint and not the run, which tries again when the next
    one is due.
    """

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
        deadline_s: float,
    ) -> None:
        """
        Args:
            num_steps: of the whole run.
            state: remembers the last whole step; a hook that comes before this one.
            mirror: copies finished checkpoints to shared storage.
            deadline_s: cluster.deadlines.update_s: longest time in which the thread that finishes
                a checkpoint reads nothing.
        """
        self.run_dir, self.config, self.num_steps = run_dir, config, num_steps
        self.state, self.learner, self.mirror = state, learner, mirror
        self.progress, self.signals, self.deadline_s = progress, signals, deadline_s
        self.is_saving = False  # the learner's state is half written
        self.finishing: Finishing | None = None

    def after_step(self, done: StepDone) -> None:
        if self.finishing is not None and self.finishing.is_over:
            self.settle()
        if not self.is_due(done.num_done, is_last=bool(done.stop_because)):
            return
        self.settle()
        if self.finishing is None:
            self.save_if_possible()
        else:
            self.progress.warn(
                f"{self.finishing.name} is still being written, to storage that is slow or hangs; "
                "there will be none after this step"
            )

    def after_run(self, num_steps: int) -> None:
        self.settle()
        is_kept = checkpoint_dir(self.run_dir, num_steps).is_dir() or self.finishing is not None
        if self.best_of(num_steps) is not None and not is_kept:  # by the evaluation at the end
            self.save_if_possible()
        self.settle()
        if self.finishing is None:
            remove_unfinished(self.run_dir)  # the disk may have been read-only when one failed
        self.finishing = None

    def is_due(self, num_done: int, *, is_last: bool) -> bool:
        every = self.config.every_steps
        # Also after the last step: a run can then be made longer.
        is_time = every > 0 and (num_done % every == 0 or num_done == self.num_steps or is_last)
        return is_time or self.best_of(num_done) is not None

    def best_of(self, num_steps: object) -> BestRecord | None:
        """The measurement after so many steps, if that was the best and its checkpoint is kept."""
        if self.config.keep_best is None or not self.config.keep_best.checkpoint:
            return None
        record = best_record(self.run_dir)
        return record if record is not None and record.num_steps == num_steps else None

    def save(self, deadline_s: float | None = None) -> None:
        """Begin a checkpoint of the last complete step, unless the learner has updated since.

        Args:
            deadline_s: what a signal leaves; None for the usual deadline.
        """
        self.signals.hold(self.config.on_signal_s)
        self.is_saving = True
        self.progress.phase("writing a checkpoint")
        state = self.state.latest

        def fill(folder: Path) -> bool:
            is_saved = self.learner.save_states(
                folder / LEARNER_DIR, state["policy_version"], deadline_s=deadline_s
            )
            if is_saved:
                self.state.write_files(folder)
            return is_saved

        self.finishing = begun(self.run_dir, state, fill)
        self.is_saving = False
        self.signals.release()

    def save_if_possible(self) -> None:
        """Begin a checkpoint; a disk that refuses it is reported."""
        try:
            self.save()
        except (RunDirectoryError, OSError) as error:
            self.is_saving = False
            self.progress.warn(self.failed(self.state.latest["num_steps"], error))
            self.signals.release()

    def settle(self) -> None:
        """Wait for the checkpoint that was begun; its failure is reported. One that is late goes
        on, and is waited for once alone."""
        if self.finishing is not None and self.finishing.is_late and not self.finishing.is_over:
            return
        try:
            self.finish(self.deadline_s)
        except MgrpoError as error:
            self.progress.warn(str(error))

    def finish(self, within_s: float, *, is_last: bool = False) -> Path | None:
        """Wait for the checkpoint that was begun, tidy and start its upload; None: there is none.

        Args:
            is_last: a signal ends the run, and `within_s` is what it leaves.

        Raises:
            RunDirectoryError: it could not be finished.
            DeadlineError: it was not finished in time, and goes on.
        """
        finishing = self.finishing
        if finishing is None:
            return None
        if is_last:
            self.finishing = None
        setting = "checkpoints.on_signal_s" if is_last else "cluster.deadlines.update_s"
        finishing.wait(within_s, setting, None if is_last else OwnBytes())
        self.finishing = None
        try:
            folder = finishing.outcome()
        except OSError as error:
            raise RunDirectoryError(self.failed(finishing.state["num_steps"], error)) from error
        if not is_last:
            self.mirror.settle()  # for the one before, before its files are deleted here
        try:
            if record := self.best_of(finishing.state["num_steps"]):
                write_best(folder, record)
            tidy(self.run_dir, self.config.keep, folder)
        except OSError as error:
            self.progress.warn(f"older checkpoints could not be tidied: {error}")
        self.mirror.checkpoint(folder, within_s if is_last else None)
        return folder

    def failed(self, num_steps: object, error: Exception) -> str:
        """What is said of a checkpoint that could not be written."""
        newest = checkpoints(self.run_dir)[-1:]
        before = f"the newest is {newest[0].name}" if newest else "there is none yet"
        return (
            f"the checkpoint after step {num_steps} could not be written: {error}. Of those before "
            f"it, {before}. Free space on the disk, or make it writable; the next one is tried "
            "when it is due"
        )

    def save_last(self, copy: Path | None) -> None:
        """Leave a checkpoint of the last complete step where a signal or an error ends the run.

        Args:
            copy: of a step in memory, for a learner that is lost or has made an update since.
        """
        if self.is_saving:
            if not self.signals.is_stopping:
                return  # that it cannot be written is the error
            self.progress.warn(
                "the checkpoint was not finished within "
                f"checkpoints.on_signal_s ({self.config.on_signal_s:g} s)"
            )
            return
        num_steps = self.state.latest["num_steps"]
        if num_steps == 0:
            return
        end = time.monotonic() + self.config.on_signal_s

        def left_s() -> float:
            return max(0.1, end - time.monotonic())

        try:
            folder = self.finish(left_s(), is_last=True)
            if not checkpoint_dir(self.run_dir, num_steps).is_dir():
                self.save_or_keep(copy, left_s())
                folder = self.finish(left_s(), is_last=True)
        except (MgrpoError, OSError) as error:  # what ends the run is something else
            self.progress.warn(f"no checkpoint was written: {error}")
            return
        if folder is not None:
            self.progress.note(f"checkpoint: {folder}; the same command resumes from it")

    def save_or_keep(self, copy: Path | None, within_s: float) -> None:
        """Save the last complete step; where the learner cannot, make a copy of it a checkpoint.

        Raises:
            MgrpoError, OSError: neither was possible.
        """
        failure: MgrpoError | None = None
        try:
            self.save(within_s)
        except MgrpoError as error:
            failure = error
        if self.finishing is None and copy is not None:
            self.finishing = copied(copy, self.run_dir)
        elif failure is not None:
            raise failure

    def close(self) -> None:
        """Wait for a checkpoint that is being finished; its failure does not hide the run's."""
        self.settle()
        self.finishing = None


class Finishing:
    """A checkpoint whose files are written, while a thread hashes and names it.

    Args:
        folder: of `begin_checkpoint`, with all files but the state's.
        state: for `state.json`.
    """

    def __init__(self, folder: Path, state: Mapping[str, object]) -> None:
        self.folder, self.state = folder, state
        self.finished: Path | None = None
        self.error: Exception | None = None
        self.is_late = False
        self.thread = threading.Thread(target=self.work, name="checkpoint", daemon=True)
        self.thread.start()

    def work(self) -> None:
        try:
            self.finished = finish_checkpoint(self.folder, self.state)
        except Exception as error:  # `outcome` raises it in the run's own thread
            self.error = error
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def name(self) -> str:
        return f"the checkpoint after step {self.state['num_steps']}"

    @property
    def is_over(self) -> bool:
        return not self.thread.is_alive()

    def wait(self, within_s: float, setting: str, progress: Counter | None) -> None:
        """
        Args:
            progress: the deadline is for a time without any; None: for the whole.

        Raises:
            DeadlineError: it was not finished in time.
        """
        patience = Patience(within_s, progress)
        while not self.is_over and (left_s := patience.left_s()) > 0:
            self.thread.join(min(left_s, LOOK_S))
        if not self.is_over:
            self.is_late = True
            raise DeadlineError(
                f"{self.name} to be on disk",
                deadline_s=round(within_s, 1),
                setting=setting,
            )

    def outcome(self) -> Path:
        """The checkpoint's folder, once it is over.

        Raises:
            Exception: what kept it from being finished.
        """
        if self.error is not None:
            raise self.error
        assert self.finished is not None, "it is over"
        return self.finished


def begun(run_dir: Path, state: JsonObject, fill: Callable[[Path], bool]) -> Finishing | None:
    """A checkpoint whose files are written, which a thread finishes; None: there are no files.

    Args:
        state: for `state.json`.
        fill: writes the other files into a folder; returns whether there are any.

    Raises:
        Exception: of `fill`, or the folder cannot be made. Nothing is left of it.
    """
    folder, is_filled = begin_checkpoint(run_dir, state["num_steps"]), False
    try:
        is_filled = fill(folder)
    finally:
        if not is_filled:
            shutil.rmtree(folder, ignore_errors=True)  # half a one may be what fills the disk
    return Finishing(folder, state) if is_filled else None


def copied(copy: Path, run_dir: Path) -> Finishing:
    """A checkpoint made of a copy of a step in memory.

    Raises:
        OSError: it cannot be written.
    """

    def fill(folder: Path) -> bool:
        for source in sorted(copy.rglob("*")):  # `copytree` goes on after a file that fails
            target = folder / source.relative_to(copy)
            if source.is_dir():
                target.mkdir()
            else:
                shutil.copyfile(source, target)
        return True

    finishing = begun(run_dir, read_state(copy), fill)
    assert finishing is not None, "a copy has files"
    return finishing


def keep_copy(
    copy: Path, run_dir: Path, progress: TrainProgress, mirror: Mirror, within_s: float
) -> None:
    """Make a copy of the last step a checkpoint, while there is no learner that could save it.

    Args:
        copy: or a checkpoint, which is one already.
        within_s: longest time (checkpoints.on_signal_s).
    """
    if checkpoint_dir(run_dir, read_state(copy)["num_steps"]).is_dir():
        return
    try:
        finishing = copied(copy, run_dir)
        finishing.wait(within_s, "checkpoints.on_signal_s", None)
        folder = finishing.outcome()
    except (MgrpoError, OSError) as error:  # what may end the run is something else
        progress.warn(f"no checkpoint was written: {error}")
        return
    progress.note(f"checkpoint: {folder}")
    mirror.checkpoint(folder, within_s)
