"""A plan as text, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from mgrpo.findings import MARKS
from mgrpo.plan.build import Plan
from mgrpo.plan.layouts import LayoutOutcome, recommendations
from mgrpo.plan.memory import GIB, MemoryUse
from mgrpo.plan.tables import layout_cells, row_json, table


def plan_text(plan: Plan, layouts: Sequence[LayoutOutcome] = ()) -> str:
    """The whole plan, table by table; columns are as wide as their content.

    Args:
        layouts: other ways to use the GPUs, fastest first.
    """
    return "\n".join(plan_lines(plan, layouts))


def plan_lines(plan: Plan, layouts: Sequence[LayoutOutcome]) -> Iterator[str]:
    rows = [*([plan.own] if plan.own else []), *layouts]
    shape = plan.shape
    yield f"{plan.recipe} on {plan.hardware}"
    yield (
        f"model {shape.source}: {shape.num_parameters / 1e6:,.1f}M parameters, {shape.num_layers} "
        f"layers, hidden {shape.hidden:,}, {shape.num_heads} heads ({shape.num_kv_heads} for keys "
        f"and values), vocabulary {shape.vocabulary:,}"
    )
    yield ""
    yield from table([["node", "GPU", "allocation", "does", "memory"], *gpu_cells(plan)])
    yield from memory_lines("each learner rank, at its peak", plan.learner)
    yield from memory_lines("each engine's GPU", plan.engine.use)
    if plan.turns is not None:
        yield ""
        yield "each GPU in turn, at its peak"
        yield from table(memory_cells(plan.turns), indent=2)
    yield ""
    yield "a step, at most"
    yield from table(batch_cells(plan), indent=2)
    if rows:
        yield ""
        yield "layouts of these GPUs, simulated, with completions of half the maximum length"
        yield from table(layout_cells(rows), indent=2)
    yield ""
    lines = [*plan.lines, *recommendations(plan.own, layouts)]
    yield from (f"{MARKS[line.status][0]} {line.name}: {line.detail}" for line in lines)


def gpu_cells(plan: Plan) -> Iterator[list[str]]:
    for row in plan.rows:
        yield [
            row.node + (" (to be added)" if row.is_brought else ""),
            str(row.gpu),
            row.allocation or "-",
            row.role or "nothing",
            f"{row.used_bytes / GIB:.1f} of {row.memory_bytes / GIB:.1f} GiB",
        ]


def memory_lines(title: str, use: MemoryUse) -> Iterator[str]:
    yield ""
    yield f"{title}: about {use.total / GIB:.1f} GiB"
    yield from table(memory_cells(use), indent=2)


def memory_cells(use: MemoryUse) -> list[list[str]]:
    return [[item.name, f"{item.num_bytes / GIB:6.2f} GiB", item.how] for item in use.items]


def batch_cells(plan: Plan) -> Iterator[list[str]]:
    for batch in plan.batches:
        yield [
            f"layer {batch.name}",
            f"{batch.num_prompts:,} prompts x {batch.group_size} = {batch.num_completions:,} "
            "completions",
            f"{batch.sequences_per_engine:,} per engine on {batch.num_engines}",
            f"{batch.max_tokens:,} tokens sampled" + drafts_text(batch.max_draft_tokens),
        ]
    yield ["learner", f"{plan.learner_tokens:,} tokens, before prefixes are merged", "", ""]


def drafts_text(max_tokens: int) -> str:
    return f", drafted up to {max_tokens} at a time" if max_tokens else ""


def plan_json(plan: Plan, layouts: Sequence[LayoutOutcome] = ()) -> dict[str, object]:
    """Plain values; memory in bytes, times in seconds."""
    return {
        "recipe": plan.recipe,
        "hardware": plan.hardware,
        "model": asdict(plan.shape),
        "gpus": [asdict(row) for row in plan.rows],
        "learner_rank": memory_json(plan.learner),
        "engine_gpu": memory_json(plan.engine.use)
        | {
            "cache_tokens": plan.engine.cache_tokens,
            "context_tokens": plan.engine.context_tokens,
            "cache_sequences": plan.engine.cache_sequences,
        },
        "turns": memory_json(plan.turns)["items"] if plan.turns is not None else [],
        "layers": [
            asdict(batch)
            | {
                "num_completions": batch.num_completions,
                "sequences_per_engine": batch.sequences_per_engine,
                "max_tokens": batch.max_tokens,
            }
            for batch in plan.batches
        ],
        "learner_tokens": plan.learner_tokens,
        "simulated": None if plan.own is None else row_json(plan.own),
        "layouts": [row_json(row) for row in layouts],
        "lines": [asdict(line) for line in [*plan.lines, *recommendations(plan.own, layouts)]],
        "fits": not plan.fails,
    }


def memory_json(use: MemoryUse) -> dict[str, object]:
    return {"total_bytes": use.total, "items": [asdict(item) for item in use.items]}
