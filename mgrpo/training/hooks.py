"""Hooks: actions before, after and between the steps of a run.

A hook first adds to the step's metrics (`measure`), then works with them (`after_step`), in the
order of the list. `mgrpo/training/run.py` makes the list.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from actors.rollout import Rollout
from mgrpo.config import EvaluationConfig
from mgrpo.errors import ClusterError
from mgrpo.evaluation.answers import HELDOUT_DIR, write_answers
from mgrpo.evaluation.evaluate import evaluate, evaluation_row
from mgrpo.metric_sums import MetricSums
from mgrpo.metrics.alarms import AlarmWatch, stop_if_asked
from mgrpo.metrics.learning import changed_policy, why_nothing_was_learnt
from mgrpo.metrics.log import ROLLOUTS_DIR, LineFile, MetricsLog, to_line
from mgrpo.metrics.memory import gpu_memory_gib, run_memory_gib
from mgrpo.metrics.resources import RESOURCES_FILE, held, on_disk
from mgrpo.metrics.rows import Row
from mgrpo.metrics.transitions import rollout_metrics
from mgrpo.storage.checkpoints import CHECKPOINTS_DIR
from mgrpo.storage.policies import POLICIES_DIR
from mgrpo.trackers.tensorboard import TENSORBOARD_DIR
from mgrpo.training.progress import TrainProgress
from mgrpo.training.workers import Engines
from mgrpo.types import Completion, Problem

FINISH_S = 20.0
"""In which a run may still be finished by a local Ray that has lost a process."""
RECORDS = (CHECKPOINTS_DIR, POLICIES_DIR, ROLLOUTS_DIR, HELDOUT_DIR, TENSORBOARD_DIR)
"""Of a run's folder: what grows with its steps because the recipe asks for it."""


@dataclass
class StepDone:
    """One step of training, as hooks see it."""

    step: int  # its number, from 0
    completions: Sequence[Completion] = ()  # sampled or trained on, and their parents
    policy_version: int = 0  # after the step
    sums: MetricSums = field(default_factory=MetricSums)
    stop_because: str = ""  # a hook's reason to end the run after this step

    @property
    def num_done(self) -> int:
        """Steps that are done, this one included."""
        return self.step + 1

    @property
    def values(self) -> dict[str, float]:
        """The step's metrics, once every hook has measured."""
        return {"policy_version": float(self.policy_version), **self.sums.means()}


class Hook:
    """Base class; override what you need."""

    def before_run(self, first_step: int) -> None:
        """Before the first step; `first_step` is above 0 in a run that was resumed."""

    def measure(self, done: StepDone) -> None:
        """Add to `done.sums`."""

    def after_step(self, done: StepDone) -> None:
        """Work with the step's metrics, which are complete."""

    def after_run(self, num_steps: int) -> None:
        """After the last step; not where an error or a signal ended the run."""


class EngineMetrics(Hook):
    """Engine load; the fleet grows or shrinks by it."""

    def __init__(self, engines: Engines) -> None:
        self.engines = engines

    def measure(self, done: StepDone) -> None:
        self.engines.close_step(done.sums)


class RolloutMetrics(Hook):
    """Accuracies, lengths, and the transitions between layers."""

    def __init__(self, num_layers: int, verify_layers: frozenset[int] = frozenset()) -> None:
        self.num_layers, self.verify_layers = num_layers, verify_layers

    def measure(self, done: StepDone) -> None:
        found = rollout_metrics(done.completions, self.num_layers, self.verify_layers)
        done.sums.merge(found)


class SystemMetrics(Hook):
    """Tokens per second; memory of the run's processes here, and of this machine's GPUs."""

    def measure(self, done: StepDone) -> None:
        values = done.values
        done.sums.add("tokens/per_s", values.get("tokens/generated", 0.0), values["seconds/step"])
        if (used := run_memory_gib()) is not None:
            done.sums.add("memory/run_gib", used)
        if on_gpus := gpu_memory_gib():
            done.sums.add("memory/fullest_gpu_gib", max(on_gpus))


class Resources(Hook):
    """What the run holds on this machine, into a file of its own."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.file = LineFile(run_dir / RESOURCES_FILE)

    def after_step(self, done: StepDone) -> None:
        self.file.append(to_line({"step": done.step, **held(), **on_disk(self.run_dir, RECORDS)}))

    def after_run(self, num_steps: int) -> None:
        self.file.close()


class OwnRay(Hook):
    """Ends a run in order whose local Ray has lost a process, unless it is nearly done: within a
    minute Ray would end it without a checkpoint."""

    def __init__(self, num_steps: int, what_is_lost: Callable[[], str]) -> None:
        self.num_steps, self.what_is_lost = num_steps, what_is_lost
        self.step_began = time.monotonic()

    def after_step(self, done: StepDone) -> None:
        step_s, self.step_began = time.monotonic() - self.step_began, time.monotonic()
        left_s = (self.num_steps - done.num_done) * step_s
        if left_s > FINISH_S and (lost := self.what_is_lost()):
            raise ClusterError(f"{lost}. Repeat the command to resume.")


class WriteStep(Hook):
    """The step's line on the terminal, in metrics.jsonl and in the trackers, and some rollouts."""

    def __init__(self, log: MetricsLog, progress: TrainProgress, *, problems_kept: int) -> None:
        """
        Args:
            problems_kept: so many problems of each step are written with all their completions.
        """
        self.log, self.progress, self.problems_kept = log, progress, problems_kept

    def after_step(self, done: StepDone) -> None:
        values = done.values
        self.log.write(done.step, values)
        self.log.write_rollouts(done.step, whole_trees(done.completions, self.problems_kept))
        self.progress.step_done(done.step, values)


class NothingLearnt(Hook):
    """Says after the first step if that changed nothing, since the following ones may not
    either."""

    def __init__(self, progress: TrainProgress) -> None:
        self.progress, self.first_step = progress, 0

    def before_run(self, first_step: int) -> None:
        self.first_step = first_step

    def after_step(self, done: StepDone) -> None:
        values = done.values
        if done.step == self.first_step and changed_policy(values) is False:
            why = why_nothing_was_learnt(values)
            look = "mgrpo check RECIPE --sample shows prompts and graded completions."
            self.progress.warn(f"step {done.step} changed nothing. {why} {look}")


class Alarms(Hook):
    """Alerts on the step's metrics; ends the run if an alert's action is stop."""

    def __init__(self, watch: AlarmWatch, log: MetricsLog, progress: TrainProgress) -> None:
        self.watch, self.log, self.progress = watch, log, progress

    def after_step(self, done: StepDone) -> None:
        """
        Raises:
            AlarmError: an alert with `action: stop` fired.
        """
        alarms = self.watch.check(done.step, done.values)
        for alarm in alarms:
            self.log.write_alarm(alarm.to_json())
            self.progress.warn(alarm.message)
        stop_if_asked(alarms)


class Evaluation(Hook):
    """Scores the held-out problems with the engines' present weights: before, during, after."""

    def __init__(
        self,
        config: EvaluationConfig,
        heldout: Sequence[Problem],
        rollout: Rollout,
        log: MetricsLog,
        progress: TrainProgress,
        *,
        num_steps: int,
        problems_kept: int = 0,
        tell: Callable[[Row], None] = lambda row: None,
    ) -> None:
        """
        Args:
            num_steps: of the whole run.
            problems_kept: so many problems are written with all their completions.
            tell: gets each evaluation, as a line of evaluation.jsonl.
        """
        self.tell = tell
        self.config, self.heldout, self.rollout = config, heldout, rollout
        self.config_during = config.model_copy(update={"guidance": config.guidance_during})
        self.log, self.progress = log, progress
        self.num_steps, self.problems_kept = num_steps, problems_kept

    def before_run(self, first_step: int) -> None:
        if first_step == 0:
            self.evaluate(0, "before", self.config)

    def after_step(self, done: StepDone) -> None:
        if is_evaluation_due(done.num_done, self.config, self.num_steps):
            self.evaluate(done.num_done, "during", self.config_during)

    def after_run(self, num_steps: int) -> None:
        self.evaluate(num_steps, "after", self.config)

    def evaluate(self, num_done: int, label: str, config: EvaluationConfig) -> None:
        if not self.heldout:
            return
        self.progress.phase(f"evaluation · {len(self.heldout)} held-out problems")
        evaluation, seconds = evaluate(self.rollout, self.heldout, config, key="eval")
        row: Row = evaluation_row(
            evaluation, step=num_done, label=label, seconds=seconds, layers=self.rollout.layers
        )
        self.log.write_evaluation(row)
        write_answers(self.log.run_dir, num_done, evaluation)
        if kept := whole_trees(evaluation.completions, self.problems_kept):
            self.log.write_rollouts(num_done, kept, "heldout")
        self.tell(row)
        left = 0 if label == "after" else num_evaluations_left(num_done, config, self.num_steps)
        self.progress.evaluated(seconds, left)
        turns = " · ".join(f"Acc@t{i} {a:.1%}" for i, a in enumerate(row["acc"], start=1))
        self.progress.note(f"evaluation {label} ({len(self.heldout)} problems): {turns}")


def is_evaluation_due(num_done: int, config: EvaluationConfig, num_steps: int) -> bool:
    """After every `every_steps` steps; the one after the last step is made in any case."""
    every = config.every_steps
    return every > 0 and num_done % every == 0 and num_done < num_steps


def num_evaluations_left(num_done: int, config: EvaluationConfig, num_steps: int) -> int:
    """Evaluations after so many steps, the one at the end included."""
    later = range(num_done + 1, num_steps)
    return 1 + sum(is_evaluation_due(step, config, num_steps) for step in later)


def whole_trees(completions: Sequence[Completion], num_problems: int) -> list[Completion]:
    """All completions of the first few problems, for inspection."""
    trees = dict.fromkeys(c.id.tree for c in completions)
    kept = set(list(trees)[:num_problems])
    return [c for c in completions if c.id.tree in kept]
