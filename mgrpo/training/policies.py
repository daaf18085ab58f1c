"""Policies in Hugging Face form that a run leaves before its end, and its early end."""

from __future__ import annotations

import shutil
from pathlib import Path

from mgrpo.config.watched import BestConfig, EarlyStoppingConfig
from mgrpo.errors import RunDirectoryError
from mgrpo.metrics.rows import Row
from mgrpo.storage.mirror import Mirror
from mgrpo.storage.policies import (
    BEST_DIR,
    BestRecord,
    best_of,
    stepped_policies,
    stepped_policy,
    write_best,
)
from mgrpo.training.hooks import Hook, StepDone
from mgrpo.training.learner_ranks import Learner
from mgrpo.training.progress import TrainProgress
from mgrpo.training.stop_signals import StopSignals
from mgrpo.training.watched import Watched, improves, why_stop


class PolicyWriter:
    """Writes the learner's policy into the run's folder, between steps.

    Args:
        hold_s: longest delay of a signal meanwhile, in seconds (checkpoints.on_signal_s).
    """

    def __init__(
        self,
        run_dir: Path,
        learner: Learner,
        mirror: Mirror,
        progress: TrainProgress,
        signals: StopSignals,
        hold_s: float,
    ) -> None:
        self.run_dir, self.learner, self.mirror = run_dir, learner, mirror
        self.progress, self.signals, self.hold_s = progress, signals, hold_s

    def write(self, folder: Path) -> bool:
        """Whole or not at all; replaces what is there. False: the disk refused it, and it is said
        so."""
        self.signals.hold(self.hold_s)
        self.progress.phase("saving the policy")
        self.mirror.settle()  # it may read what is replaced
        is_written = True
        try:
            folder.parent.mkdir(exist_ok=True)
            self.learner.save_policy(folder)
        except (RunDirectoryError, OSError) as error:
            is_written = False
            self.progress.warn(f"no policy is written to {folder}: {error}")
        self.signals.release()
        return is_written


class SteppedPolicies(Hook):
    """The policy after every so many steps, the newest few of them.

    Args:
        every_steps: 0: none.
        keep: so many newest ones.
    """

    def __init__(self, writer: PolicyWriter, *, every_steps: int, keep: int) -> None:
        self.writer, self.every_steps, self.keep = writer, every_steps, keep

    def after_step(self, done: StepDone) -> None:
        if not self.every_steps or done.num_done % self.every_steps:
            return
        if not self.writer.write(stepped_policy(self.writer.run_dir, done.num_done)):
            return
        for old in stepped_policies(self.writer.run_dir)[: -self.keep]:
            shutil.rmtree(old)


class WatchedMetrics(Hook):
    """Keeps the policy with the best measurement so far, and ends the run when a metric no longer
    improves.

    The best policy has its measurement beside it, so a run that resumes from an earlier checkpoint
    still knows what it has.

    Args:
        num_steps: that are done in a run that resumes.
    """

    def __init__(
        self,
        keep_best: BestConfig | None,
        early_stopping: EarlyStoppingConfig | None,
        num_steps: int,
        writer: PolicyWriter,
    ) -> None:
        self.keep_best, self.early_stopping = keep_best, early_stopping
        self.watched = {
            one: Watched(one, writer.run_dir, num_steps)
            for one in (self.keep_best, self.early_stopping)
            if one is not None
        }
        self.writer = writer
        self.best = None if self.keep_best is None else best_of(writer.run_dir, self.keep_best)

    def add_evaluation(self, row: Row) -> None:
        """
        Args:
            row: a line of evaluation.jsonl.
        """
        for watched in self.watched.values():
            watched.add_evaluation(row)

    def after_step(self, done: StepDone) -> None:
        for watched in self.watched.values():
            watched.add_step(done.num_done, done.values)
        self.keep_if_best(done.num_done)
        done.stop_because = self.why_stop(done.num_done)

    def after_run(self, num_steps: int) -> None:
        self.keep_if_best(num_steps)
        for config, watched in self.watched.items():
            if not watched.measured:
                self.writer.progress.warn(
                    f"{config.metric} was never measured, so it has decided nothing "
                    "(checkpoints.keep_best, early_stopping). docs/metrics.md explains all metrics."
                )

    def keep_if_best(self, num_steps: int) -> None:
        """Save the policy if it was measured after this step and is the best."""
        if self.keep_best is None:
            return
        newest = self.watched[self.keep_best].newest_after(num_steps)
        if newest is None:
            return
        if self.best is not None and not improves(newest, self.best, self.keep_best.mode):
            return
        folder, metric = self.writer.run_dir / BEST_DIR, self.keep_best.metric
        if not self.writer.write(folder):
            return
        write_best(folder, BestRecord(num_steps, metric, self.keep_best.mode, newest))
        self.best = newest
        self.writer.progress.note(f"best so far: {metric} {newest:.4g} after step {num_steps}")

    def why_stop(self, num_steps: int) -> str:
        """Why the run ends after this step; "": it goes on, or nothing was measured after it."""
        if self.early_stopping is None:
            return ""
        watched = self.watched[self.early_stopping]
        if watched.newest_after(num_steps) is None:
            return ""
        return why_stop(watched.measured, self.early_stopping)
