"""Errors and warnings of a plan, each with its numbers and a remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from cluster.allocations import Group
from learner.streaming import recipe_obstacles
from mgrpo.config import EnginesConfig
from mgrpo.findings import CheckLine, counted
from mgrpo.plan.batch import LayerBatch
from mgrpo.plan.engine_memory import EngineMemory
from mgrpo.plan.gpus import GpuType
from mgrpo.plan.hardware import Hardware
from mgrpo.plan.memory import GIB, MemoryUse
from mgrpo.plan.recipe import PlanRecipe
from mgrpo.plan.rows import GpuRow
from mgrpo.plan.shape import ModelShape
from mgrpo.plan.turns import host_bytes
from mgrpo.simulation.outcome import Outcome
from mgrpo.sources import most_completions_per_minibatch

TIGHT_SHARE = 0.9
"""A learner's estimate above this share of the memory is a warning: estimates are inexact."""
IDLE_SHARE = 0.15
"""A part that is busy for less than this share of a step is mostly idle."""


HOST_OPTIMIZER = "learner.deepspeed={zero_optimization: {offload_optimizer: {device: cpu}}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The parts of a plan that are assessed."""

    recipe: PlanRecipe
    shape: ModelShape
    hardware: Hardware
    rows: list[GpuRow]
    left_out: list[tuple[Group, str]]  # and why
    learner: MemoryUse
    learner_gpu: GpuType
    engine: EngineMemory
    engine_gpu: GpuType
    turns: MemoryUse | None
    batches: list[LayerBatch]
    outcome: Outcome | None  # None: the GPUs' speed is not known, or the plan does not fit


def assess(found: Found) -> list[CheckLine]:
    """All findings; those about the whole plan come first."""
    parts = (
        allocation_lines,
        gpu_lines,
        learner_lines,
        engine_lines,
        turn_lines,
        cache_lines,
        time_lines,
        streaming_lines,
    )
    return [line for part in parts for line in part(found)]


def allocation_lines(found: Found) -> Iterator[CheckLine]:
    """Placement of every process, nodes to be added by the autoscaler, and room to grow."""
    recipe = found.recipe
    for group, why in found.left_out:
        yield CheckLine(
            "fail",
            "placement",
            f"{group.name} ({group}) cannot be placed: {why}. {advice_for(group)}",
        )
    brought = {row.node for row in found.rows if row.is_brought}
    if brought:
        yield CheckLine(
            "ok", "placement", f"the autoscaler has to add {', '.join(sorted(brought))}"
        )
    more = sum(
        batch.max_engines - batch.num_engines for batch in growing(found.batches, recipe.engines)
    )
    if more:
        gpus = more * recipe.engines.tensor_parallel_size
        yield CheckLine(
            "ok",
            "placement",
            f"may grow by {counted(more, 'engine')}, which need {counted(gpus, 'GPU')} more",
        )


def growing(batches: list[LayerBatch], engines: EnginesConfig) -> list[LayerBatch]:
    """One per pool of engines."""
    return batches[:1] if engines.shared else batches


def advice_for(group: Group) -> str:
    if group.has_learner:
        return "Lower learner.num_ranks, or add nodes."
    return (
        "Lower layers.*.num_engines or engines.tensor_parallel_size (an engine never spans nodes), "
        "set engines.shared: true, or add nodes."
    )


def gpu_lines(found: Found) -> Iterator[CheckLine]:
    """Idle GPUs, the learner's spread over nodes, and number types that the GPU lacks."""
    empty = sum(1 for row in found.rows if not row.allocation)
    if empty and not found.left_out:
        yield CheckLine(
            "warn",
            "GPUs",
            f"{empty} of {counted(len(found.rows), 'GPU')} stay idle. Raise layers.*.num_engines "
            "or learner.num_ranks, or use fewer GPUs.",
        )
    learner_nodes = {row.node for row in found.rows if row.has_learner}
    per_node = sorted(
        sum(row.has_learner and row.node == node for row in found.rows) for node in learner_nodes
    )
    if len(set(per_node)) > 1:
        yield CheckLine(
            "warn",
            "learner",
            f"its {found.recipe.learner.num_ranks} ranks are spread unevenly over nodes "
            f"({' + '.join(map(str, per_node))}): the slowest link delays every step. Choose "
            "learner.num_ranks as a multiple or a divisor of a node's GPUs.",
        )
    for gpu, what in ((found.learner_gpu, "learner"), (found.engine_gpu, "engines")):
        wants_bf16 = found.recipe.model_dtype == "bfloat16"
        if wants_bf16 and not gpu.has_bfloat16:
            yield CheckLine(
                "fail", what, f"{gpu.name} has no bfloat16. Use model.dtype=float32 or another GPU."
            )


def learner_lines(found: Found) -> Iterator[CheckLine]:
    """The learner's memory compared with its GPU, and its ranks with the step."""
    used, here = found.learner.total, found.learner_gpu.memory_bytes
    text = f"about {used / GIB:.1f} of {here / GIB:.1f} GiB on each rank's {found.learner_gpu.name}"
    if used > here:
        yield CheckLine("fail", "learner", f"does not fit: {text}. {learner_advice(found)}")
    elif used > TIGHT_SHARE * here:
        yield CheckLine("warn", "learner", f"tight: {text}. {learner_advice(found)}")
    else:
        yield CheckLine("ok", "learner", text)
    ranks = found.recipe.learner.num_ranks
    completions = most_completions_per_minibatch(found.recipe.method)
    if completions % ranks and completions < 8 * ranks:
        yield CheckLine(
            "warn",
            "learner",
            f"{counted(completions, 'completion')} do not divide evenly among {ranks} ranks: some "
            f"ranks wait. Use a multiple of {ranks}.",
        )


def learner_advice(found: Found) -> str:
    """What makes the largest item of the learner's memory smaller, on the GPUs that there are."""
    learner, is_shared = found.recipe.learner, found.turns is not None
    biggest = found.learner.largest.name
    if biggest == "activations":
        checkpointing = "" if learner.gradient_checkpointing else "gradient_checkpointing or "
        return (
            f"Its activations are the largest item: use {checkpointing}a smaller microbatch_tokens."
        )
    ways = []
    if biggest in ("optimizer", "gradients") and learner.zero_stage >= 1:
        ways.append(f"keep the optimizer in host memory ({HOST_OPTIMIZER})")
    if learner.zero_stage < 3 and learner.num_ranks > 1 and not is_shared:
        ways.append("raise learner.zero_stage")
    if len(found.rows) > learner.num_ranks:
        together = " and engines.num_shared_engines together" if is_shared else ""
        ways.append(f"raise learner.num_ranks{together}")
    ways = ways or ["use more GPUs, or larger ones", "a smaller model"]
    return f"Its {biggest} {verb_of(biggest)} the largest item: {', or '.join(ways)}."


def verb_of(item: str) -> str:
    return "are" if item.endswith("s") else "is"


def engine_lines(found: Found) -> Iterator[CheckLine]:
    """Tensor parallelism compared with the model's heads, and the engine's memory with its GPU."""
    ways, shape = found.recipe.engines.tensor_parallel_size, found.shape
    if shape.num_heads % ways:
        valid = max(n for n in range(1, ways + 1) if shape.num_heads % n == 0)
        yield CheckLine(
            "fail",
            "engines",
            f"engines.tensor_parallel_size is {ways}, which does not divide {shape.num_heads} "
            f"attention heads. Nearest valid value: {valid}.",
        )
    if shape.max_context is not None and found.engine.context_tokens > shape.max_context:
        yield CheckLine(
            "warn",
            "engines",
            f"sequences may need {found.engine.context_tokens:,} tokens and the model's context "
            f"is {shape.max_context:,}; `mgrpo check` measures the prompts.",
        )
    used, here = found.engine.use.total, found.engine_gpu.memory_bytes
    if used > here:
        yield CheckLine(
            "warn",
            "engines",
            f"about {used / GIB:.1f} of {here / GIB:.1f} GiB on {found.engine_gpu.name}: the "
            "buffers outside vLLM's share may not fit. Lower engines.gpu_memory_utilization.",
        )


def turn_lines(found: Found) -> Iterator[CheckLine]:
    """A GPU shared by an engine and a learner rank, in the turn with the most memory."""
    if found.turns is None:
        return
    turn, gpu = found.turns.largest, found.learner_gpu
    text = (
        f"at most {turn.num_bytes / GIB:.1f} of {gpu.memory_bytes / GIB:.1f} GiB on each "
        f"{gpu.name}, while {turn.name}"
    )
    if turn.num_bytes > gpu.memory_bytes:
        yield CheckLine("fail", "turns", f"does not fit: {text}. {turn_advice(found, turn.name)}")
    elif turn.num_bytes > TIGHT_SHARE * gpu.memory_bytes and turn.name == "the learner updates":
        yield CheckLine("warn", "turns", f"tight: {text}. {turn_advice(found, turn.name)}")
    else:
        yield CheckLine("ok", "turns", text)
    ranks = Counter(row.node for row in found.rows if row.has_learner)
    if ranks:
        needed = host_bytes(found.learner) * max(ranks.values())
        yield CheckLine(
            "ok",
            "turns",
            f"{needed / GIB:.1f} GiB of host memory per machine hold its ranks' offloaded states",
        )


def turn_advice(found: Found, turn: str) -> str:
    if turn == "the engine samples":
        return "Lower engines.gpu_memory_utilization."
    if turn == "the learner updates":
        return learner_advice(found)
    return "Give engines and learner GPUs of their own."


def cache_lines(found: Found) -> Iterator[CheckLine]:
    """The capacity of an engine's cache compared with its number of sequences."""
    engine, recipe = found.engine, found.recipe
    context = engine.context_tokens
    if engine.cache_tokens < context:
        yield CheckLine(
            "fail",
            "KV cache",
            f"does not fit: beside the weights there is room for {max(0, engine.cache_tokens):,} "
            f"tokens, and one sequence can need {context:,}. Raise engines.tensor_parallel_size or "
            "engines.gpu_memory_utilization, or lower engines.max_model_len.",
        )
        return
    worst = max(found.batches, key=lambda batch: cache_needed(batch, recipe.engines))
    asked = min(worst.sequences_per_engine, recipe.engines.max_num_seqs)
    needed = cache_needed(worst, recipe.engines)
    text = (
        f"holds {engine.cache_tokens:,} tokens; {asked:,} sequences of layer {worst.name} at a "
        f"time need at most {needed:,}, since a group shares its prompt"
    )
    if needed > engine.cache_tokens:
        holds = engine.cache_tokens * asked // needed
        yield CheckLine(
            "warn",
            "KV cache",
            f"{text}: only {holds:,} of {asked:,} fit if all are long; the others wait or are "
            f"recomputed. Use more engines, a larger engines.tensor_parallel_size, or "
            f"engines.max_num_seqs={max(1, holds)}.",
        )
    else:
        yield CheckLine("ok", "KV cache", text)


def cache_needed(batch: LayerBatch, engines: EnginesConfig) -> int:
    """Cache tokens that one engine needs if every sequence has its maximum length."""
    at_once = min(batch.sequences_per_engine, engines.max_num_seqs)
    prompt = batch.max_sequence_tokens - batch.max_completion_tokens
    groups = -(-at_once // batch.group_size)
    return at_once * batch.max_completion_tokens + groups * prompt


def time_lines(found: Found) -> Iterator[CheckLine]:
    """Mostly idle parts, by the simulation; shared GPUs are not idle."""
    if found.turns is not None or found.outcome is None:
        return
    names = [f"layer {layer.name}" for layer in found.recipe.layers]
    if found.recipe.engines.shared:
        names = ["the engines' pool"]
    for name, share in zip([*names, "learner"], found.outcome.busy_shares.values(), strict=True):
        if share < IDLE_SHARE:
            give = (
                "Fewer ranks and more engines would be faster."
                if name == "learner"
                else "More learner ranks and fewer engines would be faster."
                if found.recipe.engines.shared
                else "Give some of its engines' GPUs to the others, or use engines.shared: true."
            )
            yield CheckLine(
                "warn",
                "balance",
                f"{name} would be busy for about {100 * share:.0f} % of a step (simulated). {give}",
            )


def streaming_lines(found: Found) -> Iterator[CheckLine]:
    """Whether problems train while others are sampled, or why a step waits for all of them."""
    recipe = found.recipe
    if recipe.pipeline.max_staleness_steps is None or recipe.cluster.takes_turns:
        return
    if recipe.pipeline.samples_ahead:
        ahead, when = recipe.pipeline.num_ahead, recipe.pipeline.new_weights
        steps = "the next step is" if ahead == 1 else f"the next {ahead} steps are"
        text = (
            f"{steps} sampled while one trains (pipeline.max_staleness_steps: {ahead}, "
            f"pipeline.new_weights: {when})"
        )
        yield CheckLine("ok", "pipeline", text)
        return
    obstacles = recipe_obstacles(recipe.method)
    text = "problems train while others are sampled (pipeline.max_staleness_steps: 0)"
    if obstacles:
        text = f"the learner waits for a whole step: {'; '.join(obstacles)}"
    yield CheckLine("ok", "pipeline", text)
