"""The memory of a GPU that an engine and a learner rank share in turn (`cluster.colocate`).

The waiting process keeps its CUDA context, and an engine also its captured graphs: vLLM's sleep
frees the weights and the cache.
"""

from __future__ import annotations

from mgrpo.plan.engine_memory import EngineMemory
from mgrpo.plan.memory import CONTEXT_BYTES, MIB, MemoryItem, MemoryUse
from mgrpo.plan.recipe import PlanRecipe
from mgrpo.plan.shape import ModelShape


def turn_memory(
    recipe: PlanRecipe, shape: ModelShape, learner: MemoryUse, engine: EngineMemory
) -> MemoryUse | None:
    """Each turn's sum as an item, in the order of a step; None on GPUs that are not shared."""
    if not recipe.cluster.takes_turns:
        return None
    asleep = CONTEXT_BYTES + engine.use.of("CUDA graphs")
    weights = learner.of("weights") + engine.use.of("weights")
    travelling = weights + buffer_bytes(recipe, shape) + CONTEXT_BYTES + asleep
    return MemoryUse(
        (
            MemoryItem(
                "the engine samples",
                engine.use.total + CONTEXT_BYTES,
                "all of the engine's, and the context of the offloaded learner",
            ),
            MemoryItem(
                "the learner updates",
                learner.total + asleep,
                "all of the learner's, and the context and graphs of the sleeping engine",
            ),
            MemoryItem("weights are broadcast", travelling, "both sides' weights and buffers"),
        )
    )


def buffer_bytes(recipe: PlanRecipe, shape: ModelShape) -> int:
    """The learner's one buffer, which holds its largest tensor; the engine's copy of it, and the
    layer that it puts together of such copies."""
    width = 4 if recipe.model_dtype == "float32" else 2
    output = shape.output_parameters * width
    buffer = max(recipe.packed_buffer_mib * MIB, output)
    return 2 * buffer + max(shape.layer_parameters * width, output)


def host_bytes(learner: MemoryUse) -> int:
    """Host memory for one rank's states during the engine's turn.

    The policy's weights and the optimizer's three states go to pinned memory, one block each, and
    torch rounds such blocks up to powers of two. What is there all the time is not pinned.
    """
    pinned = pinned_bytes(learner.of("weights")) + 3 * pinned_bytes(learner.of("optimizer") // 3)
    return pinned + learner.of("reference") + sum(one.num_bytes for one in learner.on_host)


def pinned_bytes(num_bytes: int) -> int:
    return 1 << (num_bytes - 1).bit_length() if num_bytes else 0
