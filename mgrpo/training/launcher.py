"""Starts the actors of one run in their allocations, with their settings."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from actors.engine import EngineSettings, VllmEngine
from actors.templates import PromptBuilder
from cluster.allocations import Allocation, placement_recipe
from cluster.placement import Placement
from cluster.progress_board import Counter
from cluster.remote import RemoteActor, wait_for
from cluster.weight_sync.broadcast import GroupSettings, WeightBroadcaster
from learner.deepspeed_config import is_bfloat16
from learner.rank import LearnerRank
from learner.rank_files import LearnerFiles
from learner.recipe import learner_recipe
from mgrpo.config import LayerConfig, RunConfig, WeightsConfig
from mgrpo.config.cluster import ClusterConfig
from mgrpo.models.node_model import NodeModel
from mgrpo.types import Problem

PROBE_TOKENS = 64  # length of the probe: enough to touch every weight, cheap to send


class Launcher:
    """Starts the actors of one run in their allocations."""

    def __init__(
        self,
        config: RunConfig,
        placement: Placement,
        device: str,
        model: NodeModel,
        max_model_len: int,
        stop_token_ids: tuple[int, ...],
    ) -> None:
        self.config, self.placement, self.device = config, placement, device
        self.model, self.max_model_len = model, max_model_len
        self.stop_token_ids = stop_token_ids
        self.backend = weight_backend(config.weights, config.cluster, device)

    def start_engine(self, allocation: Allocation, name: str) -> RemoteActor[VllmEngine]:
        """Make an engine's actor in its granted allocation, without waiting.

        Args:
            name: of the actor, unlike those of the engine's earlier processes.
        """
        actor = self.placement.start(
            partial(VllmEngine, settings=self.engine_settings(allocation)),
            allocation=allocation,
            bundle=0,
            name=name,
            environment=self.engine_environment(),
            answers_looks=True,
            max_concurrency=10_000,  # async: one coroutine per prompt, vLLM does the batching
        )
        return RemoteActor(actor.handle, allocation.name)

    def engine_environment(self) -> dict[str, str]:
        if self.device == "cuda":
            # The handles of a GPU's memory go from one process of the engine to another, as
            # pickles, which vLLM does only when told.
            return {"VLLM_ALLOW_INSECURE_SERIALIZATION": "1"} if self.backend == "ipc" else {}
        config = self.config.engines
        num_engines = placement_recipe(self.config).num_engines
        threads = config.num_threads or max(1, (os.cpu_count() or 1) // num_engines)
        return {
            "VLLM_CPU_KVCACHE_SPACE": str(config.cpu_kv_cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # engines and learner share the cores
            # Lets vLLM keep its only worker inside the engine process: one process fewer to
            # start and to talk to. The engine process itself stays separate.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            # oneDNN keeps code for each number of rows that it has multiplied, up to 1,024 times a
            # hundred KiB and more; vLLM itself keeps what it uses again.
            "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32",
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

    def engine_settings(self, allocation: Allocation) -> EngineSettings:
        config = self.config.engines
        return EngineSettings(
            name=allocation.name,
            model_dir=self.model.driver_dir,
            find_model=self.model,
            dtype=config.dtype_for(self.config.model.dtype),
            max_model_len=self.max_model_len,
            max_num_seqs=config.max_num_seqs,
            tensor_parallel_size=config.tensor_parallel_size,
            gpu_memory_utilization=config.gpu_memory_utilization,
            enforce_eager=self.is_eager,
            device=self.device,
            weight_backend=self.backend,
            shares_gpu=self.config.cluster.takes_turns,
            seed=self.config.seed,
            extra_args=config.extra_args,
            stop_token_ids=self.stop_token_ids,
            max_draft_tokens=max_draft_tokens(self.config.layers, allocation.layers),
            dead_after_s=self.config.cluster.health.dead_after_s,
        )

    def learner(
        self, allocations: Sequence[Allocation], *, replacement: int = 0
    ) -> list[RemoteActor[LearnerRank]]:
        """The rank actors, made but not started; empty without a learner's allocation.

        Args:
            replacement: how often they were replaced; Ray forgets an actor's name late.

        Raises:
            DeadlineError: it is not known which nodes those that are replaced have left.
        """
        again = f".{replacement}" if replacement else ""
        if not allocations:
            return []
        if replacement:
            self.placement.await_nodes(
                allocations[0],
                deadline_s=self.config.cluster.deadlines.learner_start_s,
                setting="cluster.deadlines.learner_start_s",
            )
        num_ranks = len(allocations[0].bundles)
        return [
            self.placement.start(
                partial(
                    LearnerRank,
                    recipe=learner_recipe(self.config),
                    model_dir=self.model.driver_dir,
                    find_model=self.model,
                    rank=rank,
                    num_ranks=num_ranks,
                    device=self.device,
                    max_row_tokens=self.max_model_len,
                ),
                allocation=allocations[0],
                bundle=rank,
                name=f"learner-rank-{rank}{again}",
                environment=self.learner_environment(num_ranks),
                answers_looks=True,
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

    def start_learner(self, learner: list[RemoteActor[LearnerRank]], progress: Counter) -> None:
        deadline_s = self.config.cluster.deadlines.learner_start_s
        setting = "cluster.deadlines.learner_start_s"
        meeting = learner[0].submit(LearnerRank.meeting_point)
        address, port = meeting.result(deadline_s=deadline_s, setting=setting)
        calls = [rank.submit(LearnerRank.start, address, port) for rank in learner]
        wait_for(
            calls,
            doing="load the policy",
            deadline_s=deadline_s,
            setting=setting,
            progress=progress,
        )

    def load_state(
        self,
        learner: list[RemoteActor[LearnerRank]],
        directory: Path,
        shared_folder: bool | None,
        progress: Counter,
    ) -> int:
        """Let the learner continue from a checkpoint; returns its policy version."""
        files = LearnerFiles(
            learner,
            directory,
            deadline_s=self.config.cluster.deadlines.learner_start_s,
            setting="cluster.deadlines.learner_start_s",
            is_shared=shared_folder,
            progress=progress,
        )
        return files.load_states()

    def broadcaster(
        self,
        learner: list[RemoteActor[LearnerRank]],
        builder: PromptBuilder,
        problems: Sequence[Problem],
        progress: Counter,
    ) -> WeightBroadcaster:
        """Sends the learner's weights to engines, which are named at each broadcast."""
        longest = self.max_model_len - 1  # vLLM wants room for one more token
        return WeightBroadcaster(
            learner,
            group=GroupSettings(
                backend=self.backend,
                workers_per_engine=self.config.engines.tensor_parallel_size,
                shares_gpus=self.config.cluster.takes_turns,
                deadline_s=self.config.cluster.deadlines.weight_sync_s,
                in_flight=self.config.pipeline.new_weights == "in_flight",
            ),
            config=self.config.weights,
            dtype=coarsest_dtype(
                model=self.config.model.dtype,
                engines=self.config.engines.dtype,
                learner=self.config.learner.dtype,
                device=self.device,
            ),
            probe_token_ids=probe_sequence(builder, self.config.layers[0], problems)[:longest],
            progress=progress,
        )


def max_draft_tokens(layers: Sequence[LayerConfig], served: Sequence[int]) -> int:
    """The longest draft that an engine of some layers (1 for the first) may be asked for, in
    tokens."""
    speculations = [layers[number - 1].speculation for number in served]
    return max((one.max_draft_tokens for one in speculations if one is not None), default=0)


def weight_backend(weights: WeightsConfig, cluster: ClusterConfig, device: str) -> str:
    """The transport of weights: as set in the recipe, or by the device."""
    if weights.backend != "auto":
        return weights.backend
    if device == "cpu":
        return "gloo"
    return "ipc" if cluster.takes_turns else "nccl"


def coarsest_dtype(*, model: str, engines: str, learner: str, device: str) -> str:
    """Of the weights as they are sent, the engines' and what the learner computes in: "float32",
    "tf32" (float32 on GPUs) or "bfloat16"."""
    is_exact = model == "float32" and engines in ("auto", "float32")
    if not is_exact or is_bfloat16(learner, model, device):
        return "bfloat16"
    return "float32" if device == "cpu" else "tf32"


def probe_sequence(
    builder: PromptBuilder, layer: LayerConfig, problems: Sequence[Problem]
) -> list[int]:
    """A real prompt, repeated to a fixed length: what the probe compares on."""
    prompt = builder.solve_prompt(layer, problems[0])
    return (prompt * math.ceil(PROBE_TOKENS / len(prompt)))[:PROBE_TOKENS]
