"""The training loop: read this first, and find every room from it.

problems -> layer-1 engines -> checks -> layer-2 engines -> checks -> learner
    engines <- verified weights <-------------------------------------- |
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from actors.rollout import ProgressCallback, place_key, with_verdicts
from cluster.remote import wait_for
from mgrpo.alarms import AlarmWatch, stop_if_asked
from mgrpo.config import RunConfig
from mgrpo.config.load import save_recipe
from mgrpo.correction_buffer import CorrectionBuffer
from mgrpo.environment import write_environment
from mgrpo.error_pool import ErrorPool
from mgrpo.errors import LearnerError, RunInterrupted
from mgrpo.evaluate import evaluate, evaluation_row
from mgrpo.metrics import MetricsLog, MetricSums, read_evaluations
from mgrpo.progress import TrainProgress, print_before_after
from mgrpo.report import write_report
from mgrpo.sampler import ShufflingSampler
from mgrpo.signals import signals_as_errors
from mgrpo.step_orders import STEP_ORDERS
from mgrpo.system import System, start_system
from mgrpo.transitions import rollout_metrics
from mgrpo.types import Completion, Problem, UpdateResult
from rewards.failures import check_failed_fraction


@dataclass
class Run:
    """What the loop holds on to."""

    config: RunConfig
    run_dir: Path
    system: System
    sampler: ShufflingSampler
    log: MetricsLog
    progress: TrainProgress
    policy_version: int = 0

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

    # --- the parts of a step ---

    def take_problems(self, count: int | None = None) -> list[Problem]:
        """The next `count` problems; None takes a step's worth."""
        indices = self.sampler.take(count or self.config.prompts_per_step)
        return [self.system.problems[index] for index in indices]

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
        completions = asyncio.run(
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
        self.progress.phase("learner · update")
        began = time.monotonic()
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
            sums.add("correction_buffer/replayed", len(replayed))
            self.corrections.add(decided)
            sums.add("correction_buffer/size", len(self.corrections))
        return decided

    def broadcast(self, sums: MetricSums) -> None:
        """The new weights to every engine, verified."""
        assert self.system.broadcaster is not None, "a training run has a learner"
        self.progress.phase("weights · broadcast and verify")
        report = self.system.broadcaster.broadcast(self.policy_version)
        sums.add_total("seconds/weights", report.seconds)
        sums.add_total("weights/sync_s", report.seconds)
        if report.probe_gap_max is not None:
            sums.add("weights/probe_gap_max", report.probe_gap_max)

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
        sums.merge(rollout_metrics(completions, len(self.config.layers)))
        values = {"policy_version": float(self.policy_version), **sums.means()}
        self.log.write(step, values)
        self.log.write_rollouts(
            step, sampled_trees(completions, self.config.output.rollouts_per_step)
        )
        self.progress.step_done(step, values)
        alarms = self.alarms.check(step, values)
        for alarm in alarms:
            self.log.write_alarm(alarm.to_json())
            self.progress.warn(alarm.message)
        stop_if_asked(alarms)

    def evaluation_due(self, step: int) -> bool:
        every = self.config.evaluation.every_steps
        return every > 0 and (step + 1) % every == 0 and step + 1 < self.config.steps

    def save_policy(self) -> Path:
        """The trained policy in Hugging Face form."""
        self.progress.phase("saving the policy")
        directory = self.run_dir / "policy"
        learner = self.system.learner
        wait_for(
            [(rank, rank.submit("save_policy", str(directory.resolve()))) for rank in learner],
            doing="save the policy",
            deadline_s=self.config.cluster.deadlines.update_s,
            setting="cluster.deadlines.update_s",
        )
        return directory


def train(run: Run) -> None:
    """Improve the policy for `config.steps` steps."""
    take_step = STEP_ORDERS[run.config.objective.update_order]
    run.evaluate(0, "before")
    for step in range(run.config.steps):
        began, sums = time.monotonic(), MetricSums()
        completions = take_step(run, step, sums)
        run.finish_step(step, began, completions, sums)
        if run.evaluation_due(step):
            run.evaluate(step + 1, "during")
    run.evaluate(run.config.steps, "after")


def sampled_trees(completions: Sequence[Completion], num_problems: int) -> list[Completion]:
    """All completions of a step's first few problems: whole trees, for people to read."""
    places = dict.fromkeys(place_key(c) for c in completions)
    kept = set(list(places)[:num_problems])
    return [c for c in completions if place_key(c) in kept]


def run_training(config: RunConfig, run_dir: Path) -> int:
    """Train a recipe into `run_dir`. Returns the process's exit code.

    Whatever ends the run, what was measured stays, engines and learner are stopped, and the
    report is written.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    save_recipe(config, run_dir / "config.yaml")
    write_environment(run_dir / "environment.json")
    log = MetricsLog(run_dir, tensorboard=config.output.tensorboard)
    title = f"{config.name} · {config.method} · {config.model.path}"
    try:
        with (
            signals_as_errors(),
            TrainProgress(config.steps, title, len(config.layers)) as progress,
        ):
            with start_system(
                config, logs_to=run_dir / "logs", with_learner=True, note=progress.note
            ) as system:
                system.rollout.on_progress = groups_progress(progress)
                sampler = ShufflingSampler(len(system.problems), config.seed)
                run = Run(config, run_dir, system, sampler, log, progress)
                train(run)
                policy = run.save_policy()
            progress.note(f"policy saved to {policy}")
    except RunInterrupted as stop:
        print(f"{stop} What was measured is in {run_dir}.")
        return stop.exit_code
    finally:
        log.close()
        if config.output.report:
            report = write_report(run_dir)
            print(f"report: {report}")
    print_before_after(Console(), read_evaluations(run_dir))
    return 0


def groups_progress(progress: TrainProgress) -> ProgressCallback:
    """Shows how far a layer's groups have come."""

    def show(layer: int, done: int, known: int) -> None:
        progress.phase(f"layer {layer} · {done}/{known} groups", fraction=done / known)

    return show
