"""Brings up everything that a run needs, in order, and takes all of it down again.

Resources first (an impossible placement shows at once), then engines and learner side by side,
then the weight group, then a first verified broadcast: a run that starts has been proven to
hold the same policy everywhere.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.engine import EngineSettings, VllmEngine
from actors.rollout import Engine, RemoteEngine, Rollout
from actors.templates import PromptBuilder
from cluster.placement import Placement, Seat, detect_device, plan_seats, total
from cluster.remote import RemoteActor, wait_for
from cluster.runtime import ray_runtime
from cluster.weights import EngineClient, WeightBroadcaster
from learner.rank import LearnerRank
from mgrpo.config import RunConfig
from mgrpo.data import usable_data
from mgrpo.errors import MgrpoError, ModelError
from mgrpo.lengths import measure_prompts
from mgrpo.models.catalog import resolve_model
from mgrpo.types import Problem
from rewards.pool import RewardPool

Note = Callable[[str], None]
PROBE_TOKENS = 64  # length of the probe: enough to touch every weight, cheap to send


@dataclass
class System:
    """A run's parts, alive."""

    config: RunConfig
    device: str
    problems: list[Problem]
    heldout: list[Problem]
    rollout: Rollout
    engines: list[RemoteActor]
    scorer: RewardPool
    learner: list[RemoteActor] = field(default_factory=list)
    broadcaster: WeightBroadcaster | None = None


def load_tokenizer(model_dir: str) -> Any:
    """The policy's tokenizer, which must have a chat template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_dir)
    except (OSError, ValueError) as error:
        raise ModelError(f"Cannot load the tokenizer of {model_dir!r}: {error}") from error
    if not tokenizer.chat_template:
        raise ModelError(
            f"The tokenizer of {model_dir!r} has no chat template, and prompts are built with it. "
            "Use an instruction-tuned model, or put a chat_template into tokenizer_config.json."
        )
    return tokenizer


@contextmanager
def start_system(
    config: RunConfig, *, logs_to: Path, with_learner: bool, note: Note
) -> Iterator[System]:
    """Everything up, in a context; all of it down at the end, whatever happened.

    Args:
        config: the recipe.
        logs_to: where the actors' logs are kept.
        with_learner: False serves an evaluation: engines only.
        note: told what is being waited for.
    """
    model_dir = resolve_model(config.model.path)
    builder = PromptBuilder(load_tokenizer(model_dir))
    problems = usable_data(config.data.train, config.data, builder, config.layers[0]).problems
    heldout = load_heldout(config, builder)
    max_model_len = config.engines.max_model_len or measure_prompts(
        builder, config, problems + heldout
    ).context_needed(config)

    seats = plan_seats(config, "cpu")  # only its CPUs, for the size of a local Ray
    with ExitStack() as stack:
        note("starting the reward processes")
        scorer = stack.enter_context(RewardPool(config.rewards))
        note("starting Ray")
        runtime = stack.enter_context(
            ray_runtime(config.cluster, num_cpus=total(seats)["CPU"], logs_to=logs_to)
        )
        device = detect_device(config.cluster.device)
        seats = [seat for seat in plan_seats(config, device) if with_learner or seat.layers]
        placement = Placement.reserve(
            seats,
            deadline_s=config.cluster.deadlines.placement_s,
            can_grow=not runtime.is_local,
        )
        stack.callback(placement.release)
        note(
            f"starting {len(seats) - with_learner} vLLM engines" + with_learner * " and the learner"
        )
        launcher = Launcher(config, placement, device, model_dir, max_model_len)
        engines = launcher.engines([seat for seat in seats if seat.layers])
        stack.callback(stop_all, list(engines), config)
        learner = launcher.learner([seat for seat in seats if not seat.layers])
        starting = [(actor, actor.submit("start")) for actor in engines]
        if learner:
            launcher.start_learner(learner)
            stack.callback(close_all, learner, config)
        wait_for(
            starting,
            doing="load its model",
            deadline_s=config.cluster.deadlines.engine_start_s,
            setting="cluster.deadlines.engine_start_s",
        )
        system = System(
            config=config,
            device=device,
            problems=problems,
            heldout=heldout,
            rollout=make_rollout(config, engines, builder, scorer),
            engines=list(engines),
            scorer=scorer,
            learner=learner,
        )
        if learner:
            note("joining the weight group and verifying the first broadcast")
            system.broadcaster = launcher.connect(learner, list(engines), builder, problems)
            system.broadcaster.broadcast(0)
        yield system


def load_heldout(config: RunConfig, builder: PromptBuilder) -> list[Problem]:
    if config.data.heldout is None:
        return []
    loaded = usable_data(config.data.heldout, config.data, builder, config.layers[0])
    return loaded.problems[: config.evaluation.max_problems]


def make_rollout(
    config: RunConfig,
    engines: dict[RemoteActor, Seat],
    builder: PromptBuilder,
    scorer: RewardPool,
) -> Rollout:
    by_layer: dict[int, list[Engine]] = {}
    for actor, seat in engines.items():
        engine = RemoteEngine(actor, deadline_s=config.cluster.deadlines.generate_s)
        for layer in seat.layers:
            by_layer.setdefault(layer, []).append(engine)
    return Rollout(
        engines=by_layer,
        scorer=scorer,
        builder=builder,
        layers=config.layers,
        temperature=config.sampling.temperature,
        seed=config.seed,
    )


class Launcher:
    """Starts the actors of one run in their places."""

    def __init__(
        self,
        config: RunConfig,
        placement: Placement,
        device: str,
        model_dir: str,
        max_model_len: int,
    ) -> None:
        self.config, self.placement, self.device = config, placement, device
        self.model_dir, self.max_model_len = model_dir, max_model_len
        backend = config.weights.backend
        self.backend = ("nccl" if device == "cuda" else "gloo") if backend == "auto" else backend

    def engines(self, seats: Sequence[Seat]) -> dict[RemoteActor, Seat]:
        environment = self.engine_environment(len(seats))
        return {
            self.placement.start(
                VllmEngine,
                seat=seat,
                bundle=0,
                name=seat.name,
                environment=environment,
                kwargs={"settings": self.engine_settings(seat)},
                max_concurrency=10_000,  # async: one coroutine per prompt, vLLM does the batching
            ): seat
            for seat in seats
        }

    def engine_environment(self, num_engines: int) -> dict[str, str]:
        if self.device == "cuda":
            return {}
        config = self.config.engines
        threads = config.num_threads or max(1, (os.cpu_count() or 1) // num_engines)
        return {
            "VLLM_CPU_KVCACHE_SPACE": str(config.cpu_kv_cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # engines and learner share the cores
            # Lets vLLM keep its only worker inside the engine process: one process fewer to
            # start and to talk to. The engine process itself stays separate.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",
            # vLLM sends its sampling through torch.compile even in eager mode: on a CPU that
            # costs 13 s and a C++ compiler at the first request, for the same tokens.
            **({"TORCHDYNAMO_DISABLE": "1"} if self.is_eager else {}),
        }

    @property
    def is_eager(self) -> bool:
        eager = self.config.engines.enforce_eager
        return self.device == "cpu" if eager is None else eager

    def engine_settings(self, seat: Seat) -> EngineSettings:
        config = self.config.engines
        return EngineSettings(
            name=seat.name,
            model_dir=self.model_dir,
            dtype=self.config.model.dtype if config.dtype == "auto" else config.dtype,
            max_model_len=self.max_model_len,
            max_num_seqs=config.max_num_seqs,
            tensor_parallel_size=config.tensor_parallel_size,
            gpu_memory_utilization=config.gpu_memory_utilization,
            enforce_eager=self.is_eager,
            device=self.device,
            weight_backend=self.backend,
            seed=self.config.seed,
            extra_args=config.extra_args,
        )

    def learner(self, seats: Sequence[Seat]) -> list[RemoteActor]:
        """The rank actors, made but not started; empty without a learner's seat."""
        if not seats:
            return []
        num_ranks = len(seats[0].bundles)
        return [
            self.placement.start(
                LearnerRank,
                seat=seats[0],
                bundle=rank,
                name=f"learner-rank-{rank}",
                environment=self.learner_environment(num_ranks),
                kwargs={
                    "config": self.config,
                    "model_dir": self.model_dir,
                    "rank": rank,
                    "num_ranks": num_ranks,
                    "device": self.device,
                },
            )
            for rank in range(num_ranks)
        ]

    def learner_environment(self, num_ranks: int) -> dict[str, str]:
        if self.device == "cuda":
            return {}
        threads = self.config.learner.num_threads or max(1, (os.cpu_count() or 1) // num_ranks)
        return {
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait starve the others
            "DS_ACCELERATOR": "cpu",
        }

    def start_learner(self, learner: list[RemoteActor]) -> None:
        deadline_s = self.config.cluster.deadlines.learner_start_s
        setting = "cluster.deadlines.learner_start_s"
        address, port = learner[0].call("meeting_point", deadline_s=deadline_s, setting=setting)
        calls = [(rank, rank.submit("start", address, port)) for rank in learner]
        wait_for(calls, doing="load the policy", deadline_s=deadline_s, setting=setting)

    def connect(
        self,
        learner: list[RemoteActor],
        engines: list[RemoteActor],
        builder: PromptBuilder,
        problems: Sequence[Problem],
    ) -> WeightBroadcaster:
        """Join learner and engines in one weight group."""
        workers = self.config.engines.tensor_parallel_size
        deadline_s = self.config.cluster.deadlines.weight_sync_s
        setting = "cluster.deadlines.weight_sync_s"
        client = EngineClient(engines, workers_per_engine=workers, deadline_s=deadline_s)
        address, port = learner[0].call("meeting_point", deadline_s=deadline_s, setting=setting)
        wait_for(
            [
                (
                    rank,
                    rank.submit(
                        "connect",
                        client,
                        backend=self.backend,
                        address=address,
                        port=port,
                        num_receivers=workers * len(engines),
                    ),
                )
                for rank in learner
            ],
            doing="join the weight group",
            deadline_s=deadline_s,
            setting=setting,
        )
        return WeightBroadcaster(
            learner,
            engines,
            config=self.config.weights,
            dtype=self.config.model.dtype,
            probe_token_ids=probe_sequence(builder, self.config, problems),
            deadline_s=deadline_s,
        )


def probe_sequence(
    builder: PromptBuilder, config: RunConfig, problems: Sequence[Problem]
) -> list[int]:
    """A real prompt, repeated to a fixed length: what the probe compares on."""
    prompt = builder.solve_prompt(config.layers[0], problems[0].question)
    return (prompt * math.ceil(PROBE_TOKENS / len(prompt)))[:PROBE_TOKENS]


def stop_all(engines: list[RemoteActor], config: RunConfig) -> None:
    end_calls(engines, "stop", config)


def close_all(learner: list[RemoteActor], config: RunConfig) -> None:
    end_calls(learner, "close", config)


def end_calls(actors: list[RemoteActor], method: str, config: RunConfig) -> None:
    """Ask each actor to end, then end it: a process that hangs or is gone must not hang us."""
    deadline_s = config.cluster.deadlines.shutdown_s
    calls = [(actor, actor.submit(method)) for actor in actors]
    for call in calls:
        try:
            wait_for(
                [call],
                doing=method,
                deadline_s=deadline_s,
                setting="cluster.deadlines.shutdown_s",
            )
        except MgrpoError:
            deadline_s = 1.0  # one that hangs uses up the patience for all
        call[0].kill()
