"""Trains a recipe: builds the parts of a run, and cleans up at its end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console

from actors.rollout import ProgressCallback
from cluster.fleet.engine_log import ENGINES_FILE
from cluster.monitoring.ray_metrics import RayMetrics
from cluster.own_ray import what_is_lost
from learner.plugin import LearnerPlugin
from learner.streaming import check_streaming, streaming_obstacles
from mgrpo.config import LayerConfig, MethodView, RunConfig
from mgrpo.config.layers import verify_layers
from mgrpo.config.load import save_recipe
from mgrpo.config.pipeline import PipelineConfig
from mgrpo.errors import LearnerLostError, MgrpoError, RunInterrupted, StorageError
from mgrpo.metrics.alarms import AlarmWatch
from mgrpo.metrics.log import MetricsLog, read_evaluations, read_metrics
from mgrpo.models.commits import at_commits, find_commits, recorded_commits
from mgrpo.plugin import load_plugins
from mgrpo.report import write_report
from mgrpo.report.card import write_cards
from mgrpo.storage.checkpoints import LEARNER_DIR, newest_whole, read_state
from mgrpo.storage.mirror import Mirror, mirror_of
from mgrpo.storage.policies import (
    EARLY_END_FILE,
    POLICY_DIR,
    EarlyEnd,
    early_end_of,
    write_early_end,
)
from mgrpo.storage.provenance import ENVIRONMENT_FILE, write_provenance
from mgrpo.trackers import RunFacts, open_trackers
from mgrpo.training.checkpoints import Checkpoints, RunState, keep_copy
from mgrpo.training.frozen_heap import frozen_heap
from mgrpo.training.hooks import (
    Alarms,
    EngineMetrics,
    Evaluation,
    NothingLearnt,
    OwnRay,
    Resources,
    RolloutMetrics,
    SystemMetrics,
    WriteStep,
)
from mgrpo.training.last_step import KeepLastStep, LastStep
from mgrpo.training.learner_ranks import Learner
from mgrpo.training.loop import Run, train
from mgrpo.training.policies import PolicyWriter, SteppedPolicies, WatchedMetrics
from mgrpo.training.progress import (
    TrainProgress,
    print_before_after,
    print_early_end,
    print_next,
)
from mgrpo.training.sources.sample_ahead import SampleAhead
from mgrpo.training.sources.stack import make_sources
from mgrpo.training.step_orders import STEP_ORDERS
from mgrpo.training.stop_signals import StopSignals, signals_as_errors
from mgrpo.training.system import System, start_system
from mgrpo.training.watchdog import watchdog_of
from mgrpo.training.workers import RunWorkers, StepLimits


def run_training(config: RunConfig, run_dir: Path, *, resume_from: Path | None = None) -> None:
    """Train a recipe into `run_dir`.

    However the run ends, its metrics are kept, engines and learner are stopped, and the report is
    written. A signal also leaves a checkpoint of the last complete step; a signal during an update
    waits for the end of that step.

    Args:
        resume_from: a checkpoint of the same run to go on from.

    Raises:
        RunInterrupted: by a signal, which has left a checkpoint.
        StorageError: the run has ended, and its files are not all in shared storage.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    save_recipe(config, run_dir / "config.yaml")
    config = at_commits(config, {} if resume_from is None else recorded_commits(run_dir))
    commits = find_commits(config.model, config.rewards, config.output.storage)
    write_provenance(run_dir / ENVIRONMENT_FILE, commits)
    config = at_commits(config, commits)
    state = None if resume_from is None else read_state(resume_from)
    first_step = 0 if state is None else state["num_steps"]
    facts = RunFacts(config.name, run_dir, config.model_dump(mode="json"), first_step)
    trackers = open_trackers(config.output.trackers, facts)
    log = MetricsLog(run_dir, trackers, config.output.price_per_hour)
    mirror, lost = mirror_of(config, run_dir), ""
    upload_within_s: float | None = None  # as long as it moves
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
                    board=progress.board,
                ) as system,
                RayMetrics(config.name) as ray_metrics,
                frozen_heap(),
                watchdog_of(system, run_dir, progress),
            ):
                log.trackers.add("ray", lambda: ray_metrics)
                system.rollout.on_progress = groups_progress(progress)
                policy = train_through_losses(
                    system, run_dir, resume_from, log, progress, signals, mirror
                )
            leave_cards(run_dir)
            progress.note(f"policy saved to {policy}")
    except RunInterrupted:
        upload_within_s = config.checkpoints.on_signal_s
        raise
    finally:
        log.close()
        if config.output.report:
            leave_report(run_dir)
        lost = mirror.finish(upload_within_s)
    print_before_after(Console(), read_evaluations(run_dir), read_metrics(run_dir))
    print_next(Console(highlight=False), run_dir, config.model.path, config.steps)
    print_early_end(Console(highlight=False), early_end_of(run_dir), config.steps)
    if lost:
        raise StorageError(lost)


def train_through_losses(
    system: System,
    run_dir: Path,
    resume_from: Path | None,
    log: MetricsLog,
    progress: TrainProgress,
    signals: StopSignals,
    mirror: Mirror,
) -> Path:
    """`train_system`, again from the last step that is kept whenever the learner is lost."""
    restarts, point = 0, resume_from
    lost: LearnerLostError | None = None
    with LastStep(system.config.checkpoints.memory_copy_share) as last_step:
        while True:
            try:
                if lost is not None:
                    replace_learner(system, run_dir, point, lost, progress, mirror)
                return train_system(
                    system,
                    run_dir,
                    point,
                    log,
                    progress,
                    signals,
                    mirror,
                    last_step=last_step,
                    restarts=restarts,
                )
            except LearnerLostError as error:
                processes = system.processes
                assert processes is not None, "they say that it is lost"
                if restarts >= processes.max_restarts:
                    raise
                lost = error
                restarts += 1
                point = newest_point([last_step.newest, newest_whole(run_dir)[0]])
                signals.hold(system.config.checkpoints.on_signal_s)
                progress.warn(
                    f"{lost} Restart {restarts} of {processes.max_restarts} "
                    f"(learner.max_restarts), from step {0 if point is None else steps_of(point)}."
                )
                progress.phase("starting the learner again")


def replace_learner(
    system: System,
    run_dir: Path,
    point: Path | None,
    lost: LearnerLostError,
    progress: TrainProgress,
    mirror: Mirror,
) -> None:
    """Other ranks go on from `point`; if there are none, it stays as a checkpoint.

    Raises:
        LearnerLostError: one of the others was lost as they started.
        MgrpoError: as `LearnerProcesses.replace`.
    """
    assert system.processes is not None, "they said that it is lost"
    try:
        system.policy_version = system.processes.replace(
            None if point is None else point / LEARNER_DIR, lost
        )
    except MgrpoError:
        if point is not None:
            keep_copy(point, run_dir, progress, mirror, system.config.checkpoints.on_signal_s)
        raise


def newest_point(points: Iterable[Path | None]) -> Path | None:
    """Of copies and checkpoints that with most steps, the first of equals; None: there is none."""
    return max((one for one in points if one is not None), key=steps_of, default=None)


def steps_of(point: Path) -> int:
    num_steps: int = read_state(point)["num_steps"]
    return num_steps


def train_system(
    system: System,
    run_dir: Path,
    resume_from: Path | None,
    log: MetricsLog,
    progress: TrainProgress,
    signals: StopSignals,
    mirror: Mirror,
    *,
    last_step: LastStep,
    restarts: int = 0,
) -> Path:
    """Train with engines and learner that are up; returns where the policy was saved.

    Args:
        resume_from: the checkpoint that the learner has loaded; None in a new run.
        last_step: where the last step is copied to.
        restarts: of the learner so far.
    """
    config, learner = system.config, system.learner
    assert learner is not None, "the system was started with a learner"
    workers = workers_of(system, learner, progress, signals)
    sources = SampleAhead(
        make_sources(config.method_view, system.problems),
        system.problems,
        num_ahead=config.pipeline.num_ahead,
        num_steps=config.steps,
    )
    run_state = RunState(workers, sources, system.problems, signals)
    alarms = AlarmWatch(
        config.alarms, trained_layers=trained_layers(one.layers for one in config.method_view.ever)
    )
    first_step = 0
    if resume_from is not None:
        first_step = run_state.load(resume_from)
        alarms.replay(row for row in read_metrics(run_dir) if row["step"] < first_step)
    checkpoints = Checkpoints(
        run_dir,
        config.checkpoints,
        num_steps=config.steps,
        state=run_state,
        learner=learner,
        mirror=mirror,
        progress=progress,
        signals=signals,
        deadline_s=config.cluster.deadlines.update_s,
    )
    writer = PolicyWriter(
        run_dir, learner, mirror, progress, signals, config.checkpoints.on_signal_s
    )
    watched = WatchedMetrics(
        config.checkpoints.keep_best, config.early_stopping, first_step, writer
    )
    run = Run(
        first_step=first_step,
        stop_because=watched.why_stop(first_step),
        num_steps=config.steps,
        source=sources,
        workers=workers,
        order=sources.overlapped_step
        if config.pipeline.samples_ahead
        else STEP_ORDERS[config.objective.update_order.type],
        hooks=[
            EngineMetrics(system.fleet),
            RolloutMetrics(len(config.layers), verify_layers(config.layers)),
            SystemMetrics(),
            WriteStep(log, progress, problems_kept=config.output.rollouts_per_step),
            NothingLearnt(progress),
            Alarms(alarms, log, progress),
            run_state,
            KeepLastStep(
                last_step,
                state=run_state,
                learner=learner,
                restarts=restarts,
                progress=progress,
            ),
            Evaluation(
                config.evaluation,
                system.heldout,
                system.rollout,
                log,
                progress,
                num_steps=config.steps,
                problems_kept=config.output.heldout_recorded,
                tell=watched.add_evaluation,
            ),
            watched,
            SteppedPolicies(
                writer,
                every_steps=config.output.policy_every_steps,
                keep=config.output.keep_policies,
            ),
            checkpoints,
            OwnRay(config.steps, what_is_lost),
            *([Resources(run_dir)] if config.output.resources else []),
        ],
    )
    (run_dir / EARLY_END_FILE).unlink(missing_ok=True)
    early_end = train_whole_steps(run, system, checkpoints, last_step, restarts)
    if early_end is not None:
        write_early_end(run_dir, early_end)
    progress.phase("saving the policy")
    learner.save_policy(run_dir / POLICY_DIR)
    return run_dir / POLICY_DIR


def train_whole_steps(
    run: Run, system: System, checkpoints: Checkpoints, last_step: LastStep, restarts: int
) -> EarlyEnd | None:
    """Train to the end, or to an error: what is whole until then is in a checkpoint.

    Raises:
        LearnerLostError: the error is that of a learner's process.
    """
    try:
        return train(run)
    except Exception as error:
        processes = system.processes
        is_signal = isinstance(error, RunInterrupted)
        lost = None if processes is None or is_signal else processes.lost(error)
        if processes is None or lost is None or restarts >= processes.max_restarts:
            checkpoints.save_last(last_step.newest)
        if lost is not None:
            raise LearnerLostError(str(lost)) from error
        raise
    finally:
        checkpoints.close()


def workers_of(
    system: System, learner: Learner, progress: TrainProgress, signals: StopSignals
) -> RunWorkers:
    """What a run's steps are made with."""
    config = system.config
    return RunWorkers(
        config.method_view,
        limits=StepLimits(
            max_failed_fraction=config.rewards.max_failed_fraction,
            on_signal_s=config.checkpoints.on_signal_s,
            least_tokens=config.learner.microbatch_tokens * config.learner.num_ranks,
        ),
        pipeline=config.pipeline,
        rollout=system.rollout,
        engines=system.fleet,
        learner=learner,
        progress=progress,
        signals=signals,
        policy_version=system.policy_version,
        streams=streams_by_step(
            config.method_view,
            config.pipeline,
            on_device=config.pipeline.streams_on(system.device, config.cluster),
        ),
    )


def streams_by_step(
    method: MethodView, pipeline: PipelineConfig, *, on_device: bool
) -> Callable[[int], bool]:
    """By step, whether trees train while others are sampled.

    Args:
        on_device: the recipe wants it on the device of this run, if its parts allow it.

    Raises:
        ConfigError: the recipe asks for it, and its parts do not allow it.
    """
    check_streaming(method, pipeline)
    if not on_device:
        return lambda step: False
    plugins = load_plugins(method, LearnerPlugin)

    def streams(step: int) -> bool:
        values = method.at_step(step)
        return not any(streaming_obstacles(values.objective, values.layers, plugins))

    return streams


def trained_layers(chains: Iterable[Sequence[LayerConfig]]) -> set[int]:
    """Numbers of the layers that have a loss in any of the chains, one of each phase."""
    return {
        number
        for layers in chains
        for number, layer in enumerate(layers, start=1)
        if layer.loss_weight > 0
    }


def leave_cards(run_dir: Path) -> None:
    """Write the policies' cards; their failure must not end a run whose policy is saved."""
    try:
        write_cards(run_dir)
    except (OSError, MgrpoError) as error:
        print(f"warning: no model card was written: {error}", file=sys.stderr)


def leave_report(run_dir: Path) -> None:
    """Write the report; its failure must not hide the run's own error."""
    try:
        print(f"report: {write_report(run_dir)}")
    except OSError as error:
        print(f"warning: no report was written: {error}", file=sys.stderr)


def groups_progress(progress: TrainProgress) -> ProgressCallback:
    """Shows the progress of a layer's groups."""

    def show(layer: int, done: int, known: int) -> None:
        progress.phase(f"layer {layer} · {done}/{known} groups", fraction=done / known)

    return show
