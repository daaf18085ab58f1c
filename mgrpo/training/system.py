"""Starts all parts of a run in order, and stops them at the end.

Resources first (an impossible placement fails at once), then engines and learner in parallel, then
the weight group, then a first verified broadcast: a run starts with the same policy in all
processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from actors.plugin import RolloutPlugin
from actors.rollout import Rollout, program_of
from actors.templates import PromptBuilder
from cluster.allocations import most_allocations, placement_recipe, plan_allocations, total
from cluster.engine_actor import EngineActor
from cluster.fleet.engine_log import EngineLog
from cluster.fleet.fleet import Fleet
from cluster.left_over import name_semaphores
from cluster.placement import Placement, detect_device
from cluster.progress_board import Counter, ProgressBoard
from cluster.remote import Call
from cluster.runtime import ray_runtime
from learner.rank import LearnerRank
from mgrpo.config import RunConfig
from mgrpo.config.cluster import DeadlinesConfig
from mgrpo.data.lengths import measure_prompts
from mgrpo.data.problems import (
    LoadedData,
    refuse_missing_answers,
    source_name,
    usable_data,
)
from mgrpo.data.progress import Note, silent
from mgrpo.data.store import JoinedProblems
from mgrpo.errors import MgrpoError
from mgrpo.models.node_model import NodeModel, driver_model
from mgrpo.models.policy_tokenizer import load_builder
from mgrpo.models.weight_check import refuse_broken_model
from mgrpo.plugin import load_plugins
from mgrpo.storage.checkpoints import refuse_other_problems
from mgrpo.training.launcher import Launcher
from mgrpo.training.learner_processes import LearnerProcesses
from mgrpo.training.learner_ranks import Learner, LearnerRanks
from mgrpo.types import Problem
from rewards.pool import RewardPool


class Replaceable(Protocol):
    """Processes of a learner that others may replace; see `LearnerProcesses`."""

    max_restarts: int

    @property
    def progress(self) -> Counter: ...

    def lost(self, error: Exception) -> MgrpoError | None: ...

    def replace(self, state: Path | None, error: MgrpoError) -> int: ...


@dataclass
class System:
    """A run's parts, alive."""

    config: RunConfig
    device: str
    problems: Sequence[Problem]
    heldout: Sequence[Problem]
    rollout: Rollout
    fleet: Fleet
    scorer: RewardPool
    learner: Learner | None = None  # None: engines only, for an evaluation
    processes: Replaceable | None = None  # the learner's
    policy_version: int = 0  # that the run begins with
    run_id: str = ""  # in the environment of each of its processes


@dataclass(frozen=True)
class Inputs:
    """What a run reads before it starts anything."""

    model: NodeModel
    builder: PromptBuilder
    problems: Sequence[Problem]
    heldout: Sequence[Problem]
    plugins: list[RolloutPlugin]
    max_model_len: int  # tokens that an engine must hold of one sequence


def read_inputs(
    config: RunConfig,
    same_problems: str | None,
    *,
    with_training: bool = True,
    note: Note = silent,
) -> Inputs:
    """Model, prompts and problems of a recipe.

    Args:
        with_training: False reads the held-out problems alone.
        same_problems: the fingerprint that the training problems must have; None takes any.
        note: gets the progress of long readings.
    """
    model = driver_model(config.model.path, config.output.storage, config.model.revision)
    if model.is_here:
        refuse_broken_model(Path(model.driver_dir))
    builder = load_builder(model.driver_dir, config.model)
    train = LoadedData(longest=[])
    if with_training:
        train = usable_data(config.data.train, config.data, builder, config.layers[0], note)
    problems = train.problems
    if same_problems is not None:
        refuse_other_problems(problems, same_problems, source_name(config.data.train))
    heldout: Sequence[Problem] = []
    if config.data.heldout is not None:
        loaded = usable_data(config.data.heldout, config.data, builder, config.layers[0], note)
        heldout = loaded.problems[: config.evaluation.max_problems]
    refuse_missing_answers(JoinedProblems(problems, heldout), config.rewards)
    plugins = load_plugins(config.method_view, RolloutPlugin)
    max_model_len = config.engines.max_model_len or (
        measure_prompts(
            builder, config.layers, heldout, measured=train.longest or ()
        ).context_needed(config.layers)
        + sum(plugin.extra_tokens() for plugin in plugins)
    )
    return Inputs(model, builder, problems, heldout, plugins, max_model_len)


@contextmanager
def start_system(
    config: RunConfig,
    *,
    logs_to: Path,
    with_learner: bool,
    with_training: bool = True,
    note: Note,
    learner_state: Path | None = None,
    same_problems: str | None = None,
    engine_log: Path | None = None,
    board: ProgressBoard | None = None,
) -> Iterator[System]:
    """A context with all parts running; stops them at its end, also after an error.

    Args:
        config: the recipe.
        logs_to: where the actors' logs are kept.
        with_learner: False serves an evaluation: engines only.
        with_training: False reads the held-out problems alone.
        note: reports the current wait.
        learner_state: a checkpoint's, that the learner continues from.
        same_problems: the fingerprint of the problems that a checkpoint was made with.
        engine_log: file for the engines' state changes.
        board: of the whole run.
    """
    if not with_learner:  # then engines have the GPUs to themselves
        alone = config.cluster.model_copy(update={"colocate": False})
        config = config.model_copy(update={"cluster": alone})
    deadlines, placed = config.cluster.deadlines, placement_recipe(config)
    inputs = read_inputs(config, same_problems, with_training=with_training, note=note)

    num_cpus = total(most_allocations(placed, "cpu"))["CPU"]  # the size of a local Ray
    name_semaphores()
    with ExitStack() as stack:
        note("starting the reward processes")
        scorer = stack.enter_context(
            RewardPool(config.rewards, problems=JoinedProblems(inputs.problems, inputs.heldout))
        )
        note("starting Ray")
        runtime = stack.enter_context(
            ray_runtime(config.cluster, num_cpus=num_cpus, logs_to=logs_to)
        )
        if runtime.dashboard_url:
            secret = f"RAY_AUTH_TOKEN_PATH={runtime.token_file} " if runtime.token_file else ""
            note(
                f"Ray's dashboard: {runtime.dashboard_url}; curves: "
                f"{secret}mgrpo dashboard --address URL"
            )
        device = detect_device(config.cluster)
        allocations = [
            allocation
            for allocation in plan_allocations(placed, device)
            if with_learner or allocation.layers
        ]
        placement = Placement.reserve(
            allocations,
            deadline_s=deadlines.placement_s,
            can_grow=not runtime.is_local,
        )
        # A local Ray ends anyway. One that has lost its GCS would end the driver for such a call.
        if not runtime.is_local:
            stack.callback(placement.release)
        num_engines = sum(bool(allocation.layers) for allocation in allocations)
        also = " and the learner" if with_learner else ""
        note(f"starting {num_engines} vLLM engines{also}")
        launcher = Launcher(
            config, placement, device, inputs.model, inputs.max_model_len, inputs.builder.stop_ids
        )
        log = EngineLog(engine_log)
        fleet = Fleet(
            placed, device, placement, launcher.start_engine, log=log, note=note, board=board
        )
        stack.callback(fleet.close)
        stack.callback(
            end_calls,
            lambda: [actor.submit(EngineActor.stop) for actor in fleet.actors],
            deadlines,
        )
        fleet.start()
        processes = LearnerProcesses(
            config.cluster,
            launcher,
            [allocation for allocation in allocations if allocation.is_learner],
            fleet,
            builder=inputs.builder,
            problems=inputs.problems,
            max_restarts=config.learner.max_restarts,
            board=board,
        )
        learner = processes.ranks
        if config.cluster.takes_turns:  # one after the other: each measures how much memory is free
            fleet.wait_until_loaded()
            fleet.sleep()
        if learner:
            processes.start()
            stack.callback(
                end_calls, lambda: [rank.submit(LearnerRank.close) for rank in learner], deadlines
            )
        fleet.wait_until_loaded()
        system = System(
            config=config,
            device=device,
            problems=inputs.problems,
            heldout=inputs.heldout,
            rollout=Rollout(
                engines=fleet,
                scorer=scorer,
                builder=inputs.builder,
                layers=config.layers,
                temperature=config.sampling.temperature,
                seed=config.seed,
                plugins=inputs.plugins,
                program=program_of(inputs.plugins),
            ),
            fleet=fleet,
            scorer=scorer,
            learner=LearnerRanks(
                learner,
                update_s=deadlines.update_s,
                shared_folder=config.checkpoints.shared_folder,
                progress=processes.progress,
            )
            if learner
            else None,
            processes=processes,
            run_id=runtime.run_id,
        )
        if learner:
            note("joining the weight group and verifying the first broadcast")
            system.policy_version = processes.connect(
                learner_state, shared_folder=config.checkpoints.shared_folder
            )
        else:
            fleet.serve_loaded_weights()
        yield system


def end_calls(submit: Callable[[], Sequence[Call[None]]], deadlines: DeadlinesConfig) -> None:
    """Ask actors to end, then end them; never wait longer than the deadline."""
    deadline_s = deadlines.shutdown_s
    for call in submit():
        try:
            call.result(deadline_s=deadline_s, setting="cluster.deadlines.shutdown_s")
        except MgrpoError:
            deadline_s = 1.0  # one that hangs uses up the patience for all
        call.actor.kill()
