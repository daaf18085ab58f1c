"""The training loop: read this first, and find every room from it.

problems -> layer-1 engines -> checks -> layer-2 engines -> checks -> learner
    engines <- verified weights <-------------------------------------- |
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from actors.rollout import ProgressCallback, place_key, with_verdicts
from cluster.fleet.engine_log import ENGINES_FILE
from cluster.monitoring.ray_metrics import RayMetrics
from cluster.remote import wait_for
from learner.rank_files import save_policy, save_states
from mgrpo.config import RunConfig
from mgrpo.config.load import save_recipe
from mgrpo.data.sampler import ShufflingSampler
from mgrpo.errors import LearnerError, MgrpoError, RunDirectoryError, RunInterrupted, StorageError
from mgrpo.evaluation.evaluate import evaluate, evaluation_row
from mgrpo.metric_sums import MetricSums
from mgrpo.metrics.alarms import AlarmWatch, stop_if_asked
from mgrpo.metrics.log import MetricsLog, read_evaluations, read_metrics
from mgrpo.metrics.transitions import rollout_metrics
from mgrpo.report import write_report
from mgrpo.storage.checkpoints import (
    LEARNER_DIR,
    begin_checkpoint,
    fingerprint,
    finish_checkpoint,
    keep_newest,
    read_state,
)
from mgrpo.storage.environment import write_environment
from mgrpo.storage.mirror import Mirror, mirror_of
from mgrpo.trackers import RunFacts, open_trackers
from mgrpo.training.progress import TrainProgress, print_before_after
from mgrpo.training.sources.correction_buffer import CorrectionBuffer
from mgrpo.training.sources.domain_sampler import DomainSampler
from mgrpo.training.sources.error_pool import ErrorPool
from mgrpo.training.sources.preference_cycle import PreferenceCycle
from mgrpo.training.step_orders import STEP_ORDERS
from mgrpo.training.stop_signals import StopSignals, signals_as_errors
from mgrpo.training.system import System, start_system
from mgrpo.types import STORED_PAIR, Completion, Problem, UpdateResult
from rewards.failures import check_failed_fraction


@dataclass
class Run:
    """What the loop holds on to."""

    config: RunConfig
    run_dir: Path
    system: System
    sampler: ShufflingSampler | DomainSampler
    log: MetricsLog
    progress: TrainProgress
    signals: StopSignals
    mirror: Mirror
    policy_version: int = 0
    first_step: int = 0
    resume_state: dict[str, Any] = field(default_factory=dict)  # as of the last whole step
    is_saving: bool = False  # a checkpoint is half written

    def __post_init__(self) -> None:
        objective = self.config.objective
        trained = {
            number
            for _, config in self.config.phase_configs
            for number, layer in enumerate(config.layers, start=1)
            if layer.loss_weight > 0
        }
        self.alarms = AlarmWatch(self.config.alarms, trained_layers=trained)
        self.error_pool = ErrorPool(objective.error_pool)
        self.corrections = (
            CorrectionBuffer(objective.correction_buffer, self.config.seed)
            if objective.correction_buffer is not None
            else None
        )
        self.preferences = PreferenceCycle(self.config)
        self.problems_fingerprint = fingerprint(self.system.problems)
        self.resume_state = self.state_dict(self.first_step)

    # --- the parts of a step ---

    def take_problems(self, count: int | None = None) -> list[Problem]:
        """The next `count` problems; None takes a step's worth."""

        def draw(number: int) -> list[Problem]:
            return [self.system.problems[index] for index in self.sampler.take(number)]

        return self.preferences.take_problems(draw, count or self.config.prompts_per_step)

    def roll_out(
        self,
        step: int,
        problems: Sequence[Problem],
        sums: MetricSums,
        *,
        layers: range | None = None,
        attempts: Sequence[Completion] = (),
        slots: Sequence[int] | None = None,
    ) -> list[Completion]:
        """Sample and score some layers (all by default) for a step's problems.

        `slots` are the problems' places in the step, where they do not count from 0.
        """
        config = self.config.at_step(step)
        rollout = dataclasses.replace(
            self.system.rollout, layers=config.layers, temperature=config.sampling.temperature
        )
        layers = layers or range(1, len(self.config.layers) + 1)
        began = time.monotonic()
        completions: list[Completion] = self.system.fleet.run(
            rollout.run(
                step,
                problems,
                first_layer=layers[0],
                last_layer=layers[-1],
                attempts=attempts,
                slots=slots,
            )
        )
        sums.add_total("seconds/rollout", time.monotonic() - began)
        for number, clock in rollout.clocks.items():
            sums.add_total(f"seconds/layer{number}", clock.seconds)
        if rollout.plugins:
            sums.add_total("tokens/sampled_by_plugins", rollout.num_plugin_tokens)
        rewards = [c.reward for c in completions if c.reward is not None]
        check_failed_fraction(rewards, self.config.rewards.max_failed_fraction)
        return completions

    def update(
        self,
        step: int,
        completions: Sequence[Completion],
        sums: MetricSums,
        *,
        parents: Sequence[Completion] = (),
    ) -> list[Completion]:
        """One update of the policy; the completions come back with what was decided of each.

        `parents` are known to the update but do not train in it.
        """
        # From here on the learner is ahead of the last whole step, until this one is whole.
        self.signals.hold(self.config.checkpoints.on_signal_s)
        self.progress.phase("learner · update")
        began = time.monotonic()
        self.system.fleet.lend_gpus()
        deadline_s = self.config.cluster.deadlines.update_s
        replayed = self.corrections.draw(step, self.policy_version) if self.corrections else []
        results: list[UpdateResult] = wait_for(
            [
                (rank, rank.submit("update", list(completions), list(parents), step, replayed))
                for rank in self.system.learner
            ],
            doing="update the policy",
            deadline_s=deadline_s,
            setting="cluster.deadlines.update_s",
            meanwhile=self.system.fleet.tend,
        )
        result = results[0]
        if result is None:
            raise LearnerError("Learner rank 0 did not report its update.")
        self.policy_version = result.policy_version
        sums.merge(result.metrics)
        sums.add_total("seconds/update", time.monotonic() - began)
        verdicts = {v.completion_id: (v.advantage, v.selected, v.reason) for v in result.verdicts}
        decided = with_verdicts(completions, verdicts)
        if self.corrections is not None:
            sums.add_total("correction_buffer/replayed", len(replayed))
            self.corrections.add(decided)
            sums.add("correction_buffer/size", len(self.corrections))
        return decided

    def sequence_logprobs(self, step: int, completions: Sequence[Completion]) -> list[float]:
        """The policy's log-probability of each completion under the weights now, in nats."""
        self.progress.phase(f"learner · log-probabilities of {len(completions)} completions")
        self.system.fleet.lend_gpus()
        found = wait_for(
            [
                (rank, rank.submit("sequence_logprobs", list(completions), step))
                for rank in self.system.learner
            ],
            doing="measure log-probabilities",
            deadline_s=self.config.cluster.deadlines.update_s,
            setting="cluster.deadlines.update_s",
        )
        logprobs: list[float] = found[0]
        return logprobs

    def broadcast(self, sums: MetricSums) -> None:
        """The new weights to every engine, verified."""
        self.progress.phase("weights · broadcast and verify")
        report = self.system.fleet.broadcast(self.policy_version)
        sums.add_total("seconds/weights", report.seconds)
        sums.add_total("weights/sync_s", report.seconds)
        if report.probe_gap_max is not None:
            sums.add("weights/probe_gap_max", report.probe_gap_max)

    # --- checkpoints ---

    def state_dict(self, num_steps: int) -> dict[str, Any]:
        """What resuming needs beside the learner's own state, after `num_steps` steps."""
        return {
            "num_steps": num_steps,
            "problems": self.problems_fingerprint,
            "policy_version": self.policy_version,
            "sampler": self.sampler.state_dict(),
            "error_pool": self.error_pool.state_dict(),
            "corrections": None if self.corrections is None else self.corrections.state_dict(),
            "preferences": self.preferences.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; the learner has loaded its state already."""
        if self.policy_version != state["policy_version"]:
            raise RunDirectoryError(
                f"The checkpoint's learner is at policy version {self.policy_version}, its state "
                f"at {state['policy_version']}: they are not of one moment."
            )
        self.first_step = state["num_steps"]
        self.sampler.load_state_dict(state["sampler"])
        self.error_pool.load_state_dict(state["error_pool"])
        if self.corrections is not None:
            self.corrections.load_state_dict(state["corrections"] or [])
        if "preferences" in state:  # checkpoints from before there were any have none
            self.preferences.load_state_dict(state["preferences"])
        earlier = [row for row in read_metrics(self.run_dir) if row["step"] < self.first_step]
        self.alarms.replay(earlier)
        self.resume_state = state

    def save_checkpoint(self, deadline_s: float | None = None) -> Path | None:
        """Write the last whole step down; None where the learner has gone beyond it since."""
        if deadline_s is None:
            self.mirror.settle()  # for the one before, before its files are deleted here
        self.signals.hold(self.config.checkpoints.on_signal_s)
        self.is_saving = True
        deadlines = self.config.cluster.deadlines
        self.progress.phase("writing a checkpoint")
        folder = begin_checkpoint(self.run_dir, self.resume_state["num_steps"])
        finished = None
        try:
            is_saved = save_states(
                self.system.learner,
                folder / LEARNER_DIR,
                self.resume_state["policy_version"],
                deadline_s=deadline_s or deadlines.update_s,
                setting="checkpoints.on_signal_s" if deadline_s else "cluster.deadlines.update_s",
                is_shared=self.config.checkpoints.shared_folder,
            )
            if is_saved:
                finished = finish_checkpoint(folder, self.resume_state)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # half a one may be what fills the disk
        if finished is not None:
            keep_newest(self.run_dir, self.config.checkpoints.keep)
            self.mirror.checkpoint(finished, deadline_s)
        self.is_saving = False
        self.signals.release()
        return finished

    def checkpoint_due(self, step: int) -> bool:
        every, num_done = self.config.checkpoints.every_steps, step + 1
        # Also after the last step: a run can then be made longer.
        return every > 0 and (num_done % every == 0 or num_done == self.config.steps)

    # --- around the steps ---

    def evaluate(self, step: int, label: str) -> None:
        """Score the held-out problems with the engines' present weights."""
        if not self.system.heldout:
            return
        self.progress.phase(f"evaluation · {len(self.system.heldout)} held-out problems")
        evaluation, seconds = evaluate(
            self.system.rollout, self.system.heldout, self.config.evaluation, key="eval"
        )
        row = evaluation_row(
            evaluation, step=step, label=label, seconds=seconds, config=self.config
        )
        self.log.write_evaluation(row)
        turns = " · ".join(f"Acc@t{i} {a:.1%}" for i, a in enumerate(row["acc"], start=1))
        self.progress.note(f"evaluation {label} ({len(self.system.heldout)} problems): {turns}")

    def finish_step(
        self, step: int, began: float, completions: list[Completion], sums: MetricSums
    ) -> None:
        """Everything that is written down after a step."""
        sums.add_total("seconds/step", time.monotonic() - began)
        self.system.fleet.close_step(sums)
        sums.merge(rollout_metrics(completions, len(self.config.layers)))
        fresh = [one for one in completions if one.augmented_by != STORED_PAIR]
        for domain, chance in self.sampler.observe(fresh).items():
            sums.add(f"sampler/{domain}", chance)
        values = {"policy_version": float(self.policy_version), **sums.means()}
        self.log.write(step, values)
        self.log.write_rollouts(
            step, sampled_trees(completions, self.config.output.rollouts_per_step)
        )
        self.progress.step_done(step, values)
        self.resume_state = self.state_dict(step + 1)
        alarms = self.alarms.check(step, values)
        for alarm in alarms:
            self.log.write_alarm(alarm.to_json())
            self.progress.warn(alarm.message)
        stop_if_asked(alarms)
        self.signals.release()

    def evaluation_due(self, step: int) -> bool:
        every = self.config.evaluation.every_steps
        return every > 0 and (step + 1) % every == 0 and step + 1 < self.config.steps

    def save_policy(self) -> Path:
        """The trained policy in Hugging Face form."""
        self.progress.phase("saving the policy")
        directory = self.run_dir / "policy"
        save_policy(
            self.system.learner,
            directory,
            deadline_s=self.config.cluster.deadlines.update_s,
            setting="cluster.deadlines.update_s",
            is_shared=self.config.checkpoints.shared_folder,
        )
        return directory


def train(run: Run) -> None:
    """Improve the policy for `config.steps` steps."""
    take_step = STEP_ORDERS[run.config.objective.update_order]
    if run.first_step == 0:
        run.evaluate(0, "before")
    for step in range(run.first_step, run.config.steps):
        began, sums = time.monotonic(), MetricSums()
        completions = take_step(run, step, sums)
        run.finish_step(step, began, completions, sums)
        if run.evaluation_due(step):
            run.evaluate(step + 1, "during")
        if run.checkpoint_due(step):
            run.save_checkpoint()
    run.evaluate(run.config.steps, "after")


def sampled_trees(completions: Sequence[Completion], num_problems: int) -> list[Completion]:
    """All completions of a step's first few problems: whole trees, for people to read."""
    places = dict.fromkeys(place_key(c) for c in completions)
    kept = set(list(places)[:num_problems])
    return [c for c in completions if place_key(c) in kept]


def run_training(config: RunConfig, run_dir: Path, *, resume_from: Path | None = None) -> int:
    """Train a recipe into `run_dir`. Returns the process's exit code.

    Whatever ends the run, what was measured stays, engines and learner are stopped, and the
    report is written. A signal also leaves a checkpoint of the last whole step; one that comes
    after the learner has begun to change the policy waits for the end of that step.

    Args:
        resume_from: a checkpoint of the same run to go on from.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    save_recipe(config, run_dir / "config.yaml")
    write_environment(run_dir / "environment.json")
    state = None if resume_from is None else read_state(resume_from)
    first_step = 0 if state is None else state["num_steps"]
    facts = RunFacts(config.name, run_dir, config.model_dump(mode="json"), first_step)
    log = MetricsLog(run_dir, open_trackers(config.output.trackers, facts))
    mirror, upload_s, lost = mirror_of(config, run_dir), config.output.storage.upload_s, ""
    title = f"{config.name} · {config.method} · {config.model.path}"
    try:
        with (
            signals_as_errors() as signals,
            TrainProgress(
                config.steps, title, len(config.layers), first_step=first_step
            ) as progress,
        ):
            log.trackers.warn = mirror.warn = progress.warn
            mirror.begin()
            with (
                start_system(
                    config,
                    logs_to=run_dir / "logs",
                    with_learner=True,
                    note=progress.note,
                    learner_state=None if resume_from is None else resume_from / LEARNER_DIR,
                    same_problems=None if state is None else state.get("problems"),
                    engine_log=run_dir / ENGINES_FILE,
                ) as system,
                RayMetrics(config.name) as ray_metrics,
            ):
                log.trackers.add("ray", lambda: ray_metrics)
                system.rollout.on_progress = groups_progress(progress)
                sampler = make_sampler(config, system.problems)
                run = Run(
                    config,
                    run_dir,
                    system,
                    sampler,
                    log,
                    progress,
                    signals,
                    mirror,
                    system.policy_version,
                )
                if state is not None:
                    run.load_state_dict(state)
                train_or_checkpoint(run)
                policy = run.save_policy()
            progress.note(f"policy saved to {policy}")
    except RunInterrupted as stop:
        upload_s = min(upload_s, config.checkpoints.on_signal_s)
        print(f"{stop} What was measured is in {run_dir}.")
        return stop.exit_code
    finally:
        log.close()
        if config.output.report:
            leave_report(run_dir)
        lost = mirror.finish(upload_s)
    print_before_after(Console(), read_evaluations(run_dir), read_metrics(run_dir))
    return StorageError.exit_code if lost else 0


def leave_report(run_dir: Path) -> None:
    """Write the report; a machine that refuses must not hide what ended the run."""
    try:
        print(f"report: {write_report(run_dir)}")
    except OSError as error:
        print(f"warning: no report was written: {error}", file=sys.stderr)


def make_sampler(
    config: RunConfig, problems: Sequence[Problem]
) -> ShufflingSampler | DomainSampler:
    """Which problems come next, as the recipe has it."""
    if config.data.robust is None:
        return ShufflingSampler(len(problems), config.seed)
    return DomainSampler([one.domain for one in problems], config.data.robust, config.seed)


def train_or_checkpoint(run: Run) -> None:
    """Train; where a signal stops it, leave a checkpoint of the last whole step."""
    try:
        train(run)
    except RunInterrupted:
        if run.is_saving:
            run.progress.warn(
                "the checkpoint that was being written was not finished within "
                f"checkpoints.on_signal_s ({run.config.checkpoints.on_signal_s:g} s)"
            )
        elif run.resume_state["num_steps"] > 0:
            try:
                folder = run.save_checkpoint(run.config.checkpoints.on_signal_s)
            except (MgrpoError, OSError) as error:  # the signal is what ends the run, not this
                run.progress.warn(f"no checkpoint was written: {error}")
            else:
                if folder is not None:
                    run.progress.note(f"checkpoint: {folder}; the same command resumes from it")
        raise


def groups_progress(progress: TrainProgress) -> ProgressCallback:
    """Shows how far a layer's groups have come."""

    def show(layer: int, done: int, known: int) -> None:
        progress.phase(f"layer {layer} · {done}/{known} groups", fraction=done / known)

    return show
