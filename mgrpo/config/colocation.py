"""Rules of a recipe whose engines and learner share their GPUs (`cluster.colocate`)."""

from __future__ import annotations

from mgrpo.config.cluster import ClusterConfig, NodesConfig, WeightsConfig
from mgrpo.config.engines import EnginesConfig
from mgrpo.config.learner import LearnerConfig
from mgrpo.config.pipeline import PipelineConfig
from mgrpo.errors import ConfigFault

OFFLOADS = ("offload_optimizer", "offload_param")


def colocation_faults(
    cluster: ClusterConfig,
    engines: EnginesConfig,
    learner: LearnerConfig,
    weights: WeightsConfig,
    pipeline: PipelineConfig,
) -> list[ConfigFault]:
    """All settings that prevent an engine and a learner rank from sharing each GPU in turn."""
    if not cluster.takes_turns:
        if weights.backend != "ipc":
            return []
        why = "passes weights within a GPU, and engines and learner have different ones."
        return [ConfigFault("weights.backend", "ipc", why, "Use auto, or cluster.colocate.")]
    found = engine_faults(cluster, engines, weights, learner.num_ranks)
    if isinstance(pipeline.max_staleness_steps, int):
        given = str(pipeline.max_staleness_steps)
        why = "with cluster.colocate engines and learner have the GPUs in turn."
        found.append(ConfigFault("pipeline.max_staleness_steps", given, why, "Use auto."))
    return found + learner_faults(learner)


def engine_faults(
    cluster: ClusterConfig, engines: EnginesConfig, weights: WeightsConfig, ranks: int
) -> list[ConfigFault]:
    count, ways = engines.pool, engines.tensor_parallel_size
    faults = []
    if not engines.shared:
        given = "null" if engines.shared is None else "false"
        why = "with cluster.colocate each GPU has one engine, which serves every layer."
        faults.append(ConfigFault("engines.shared", given, why, "Use engines.shared: true."))
    elif (count.min, count.max) != (ranks, ranks):
        shown = f"{{min: {count.min}, max: {count.max}}}" if count.is_elastic else str(count.min)
        why = f"with cluster.colocate each of the learner's {ranks} ranks shares its GPU with one."
        hint = f"Nearest valid value: {ranks}."
        faults.append(ConfigFault("engines.num_shared_engines", shown, why, hint))
    if ways != 1:
        why = "with cluster.colocate an engine has the GPU of one learner rank."
        faults.append(
            ConfigFault("engines.tensor_parallel_size", str(ways), why, "Nearest valid value: 1.")
        )
    if cluster.engine_nodes != NodesConfig():
        why = "has no effect with cluster.colocate: engines are placed with the learner's ranks."
        hint = "Use cluster.learner_nodes."
        faults.append(ConfigFault("cluster.engine_nodes", "(given)", why, hint))
    if weights.backend == "nccl":
        why = "NCCL needs a GPU for each process, and with cluster.colocate two share one."
        faults.append(ConfigFault("weights.backend", "nccl", why, "Use auto."))
    return faults


def learner_faults(learner: LearnerConfig) -> list[ConfigFault]:
    faults = []
    if learner.zero_stage != 2:
        why = (
            "with cluster.colocate the learner's states are offloaded while engines sample, which "
            "DeepSpeed supports at stage 2."
        )
        hint = "Nearest valid value: 2."
        faults.append(ConfigFault("learner.zero_stage", str(learner.zero_stage), why, hint))
    zero = learner.deepspeed.get("zero_optimization", {})
    faults += [
        ConfigFault(
            f"learner.deepspeed.zero_optimization.{key}",
            "(given)",
            "with cluster.colocate all states are offloaded between updates anyway.",
            "Remove the key.",
        )
        for key in OFFLOADS
        if zero.get(key)
    ]
    return faults
