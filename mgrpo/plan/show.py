"""A plan as text, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from mgrpo.findings import MARKS
from mgrpo.plan.build import Plan
from mgrpo.plan.memory import GIB, MemoryUse
from mgrpo.report.words import duration


def plan_text(plan: Plan) -> str:
    """The whole plan, table by table; columns are as wide as their content."""
    return "\n".join(plan_lines(plan))


def plan_lines(plan: Plan) -> Iterator[str]:
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
    if plan.times:
        yield ""
        yield "rough seconds, without overlap and with completions of half the maximum length"
        yield from table(
            [[part.name, plain(duration(part.seconds))] for part in plan.times], indent=2
        )
    yield ""
    yield from (f"{MARKS[line.status][0]} {line.name}: {line.detail}" for line in plan.lines)


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
            f"{batch.max_tokens:,} tokens sampled",
        ]
    yield ["learner", f"{plan.learner_tokens:,} tokens, before prefixes are merged", "", ""]


def table(rows: Sequence[Sequence[str]] | Iterator[list[str]], *, indent: int = 0) -> Iterator[str]:
    """Rows of cells, each column as wide as its widest cell."""
    cells = [list(row) for row in rows]
    widths = [max(len(row[n]) for row in cells) for n in range(len(cells[0]))] if cells else []
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield " " * indent + line.rstrip()


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def plan_json(plan: Plan) -> dict[str, object]:
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
        "times": [asdict(part) for part in plan.times],
        "lines": [asdict(line) for line in plan.lines],
        "fits": not plan.fails,
    }


def memory_json(use: MemoryUse) -> dict[str, object]:
    return {"total_bytes": use.total, "items": [asdict(item) for item in use.items]}
