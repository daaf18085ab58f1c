"""Rules of a recipe whose engines and learner share their GPUs (`cluster.colocate`)."""

from __future__ import annotations

from mgrpo.config.cluster import ClusterConfig, NodesConfig, WeightsConfig
from mgrpo.config.engines import EnginesConfig
from mgrpo.config.learner import LearnerConfig
from mgrpo.config.pipeline import PipelineConfig
from mgrpo.errors import ConfigFault, Faults, at_most, must_be


def colocation_faults(
    cluster: ClusterConfig,
    engines: EnginesConfig,
    learner: LearnerConfig,
    weights: WeightsConfig,
    pipeline: PipelineConfig,
) -> Faults:
    """All settings that prevent an engine and a learner rank from sharing each GPU in turn."""
    if not cluster.takes_turns:
        if weights.backend == "ipc":
            why = "passes weights within a GPU, and engines and learner have different ones."
            yield ConfigFault("weights.backend", "ipc", why, "Use auto, or cluster.colocate.")
        return
    yield from engine_faults(cluster, engines, weights, learner.num_ranks)
    if isinstance(pipeline.max_staleness_steps, int):
        given = str(pipeline.max_staleness_steps)
        why = "with cluster.colocate engines and learner have the GPUs in turn."
        yield ConfigFault("pipeline.max_staleness_steps", given, why, "Use auto.")
    yield from learner_faults(learner)


def engine_faults(
    cluster: ClusterConfig, engines: EnginesConfig, weights: WeightsConfig, ranks: int
) -> Faults:
    count = engines.pool
    if not engines.shared:
        given = "null" if engines.shared is None else "false"
        why = "with cluster.colocate each GPU has one engine, which serves every layer."
        yield ConfigFault("engines.shared", given, why, "Use engines.shared: true.")
    elif (count.min, count.max) != (ranks, ranks):
        shown = f"{{min: {count.min}, max: {count.max}}}" if count.is_elastic else str(count.min)
        why = f"with cluster.colocate each of the learner's {ranks} ranks shares its GPU with one."
        hint = f"Nearest valid value: {ranks}."
        yield ConfigFault("engines.num_shared_engines", shown, why, hint)
    why = "with cluster.colocate an engine has the GPU of one learner rank."
    yield from at_most("engines.tensor_parallel_size", engines.tensor_parallel_size, 1, why)
    if cluster.engine_nodes != NodesConfig():
        why = "has no effect with cluster.colocate: engines are placed with the learner's ranks."
        hint = "Use cluster.learner_nodes."
        yield ConfigFault("cluster.engine_nodes", "(given)", why, hint)
    if weights.backend == "nccl":
        why = "NCCL needs a GPU for each process, and with cluster.colocate two share one."
        yield ConfigFault("weights.backend", "nccl", why, "Use auto.")


def learner_faults(learner: LearnerConfig) -> Faults:
    why = "with cluster.colocate its states leave the GPU in turn: DeepSpeed does it at stage 2."
    yield from must_be("learner.zero_stage", learner.zero_stage, 2, why)
    if learner.deepspeed.get("zero_optimization", {}).get("offload_param"):
        path = "learner.deepspeed.zero_optimization.offload_param"
        why = "with cluster.colocate weights are offloaded between updates anyway."
        hint = "Remove the key; offload_optimizer is the one that makes an update smaller."
        yield ConfigFault(path, "(given)", why, hint)
