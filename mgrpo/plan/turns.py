"""The memory of a GPU that an engine and a learner rank have in turn (`cluster.colocate`).

Who does not have the turn keeps its CUDA context, and an engine its captured graphs too: vLLM's
sleep frees the weights and the cache.
"""

from __future__ import annotations

from mgrpo.config import RunConfig
from mgrpo.plan.engine_memory import EngineMemory
from mgrpo.plan.memory import CONTEXT_BYTES, MemoryItem, MemoryUse


def turn_memory(config: RunConfig, learner: MemoryUse, engine: EngineMemory) -> MemoryUse | None:
    """Each turn's sum as an item, in the order of a step; None on GPUs that nobody shares."""
    if not config.cluster.colocate:
        return None
    asleep = CONTEXT_BYTES + engine.use.of("CUDA graphs")
    travelling = (
        learner.of("weights")
        + learner.of("transfer buffers")
        + CONTEXT_BYTES
        + engine.use.of("weights")
        + engine.use.of("transfer buffers")
        + asleep
    )
    return MemoryUse(
        (
            MemoryItem(
                "the engine samples",
                engine.use.total + CONTEXT_BYTES,
                "all of the engine's, and the context of a learner whose states have left",
            ),
            MemoryItem(
                "the learner updates",
                learner.total + asleep,
                "all of the learner's, and the context and graphs of an engine that sleeps",
            ),
            MemoryItem("weights travel", travelling, "both sides' weights and buffers"),
        )
    )
