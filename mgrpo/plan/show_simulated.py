"""Simulated steps as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from mgrpo.findings import counted
from mgrpo.plan.recipe import PlanRecipe
from mgrpo.plan.search import Found
from mgrpo.plan.tables import layout_cells, percent, row_json, table
from mgrpo.simulation.outcome import Outcome, PoolOutcome
from mgrpo.simulation.picture import text_timeline


def outcome_lines(recipe: PlanRecipe, outcome: Outcome, source: str) -> Iterator[str]:
    """Seconds, tokens, busy shares and a timeline."""
    engines = " + ".join(str(pool.num_gpus) for pool in outcome.pools)
    ranks = counted(outcome.num_ranks, "learner rank")
    where = f"{outcome.num_ranks} GPUs in turn" if outcome.is_colocated else (
        f"engines on {engines} GPUs, {ranks}"
    )  # fmt: skip
    yield f"{recipe.name}, simulated: {where}"
    yield f"rates {source}"
    yield ""
    seconds = outcome.step_seconds
    yield from table(
        [
            ["seconds a step", f"{outcome.seconds_per_step:,.1f}", spread(seconds)],
            ["tokens a second", f"{outcome.tokens_per_s:,.0f}", "sampled and trained on"],
            *(
                [f"{pool.name} busy", percent(outcome.pool_busy(pool)), running(outcome, pool)]
                for pool in outcome.pools
            ),
            ["learner busy", percent(outcome.learner_busy), ""],
            ["GPUs busy", percent(outcome.gpus_busy), f"of {outcome.num_gpus:,}"],
        ]
    )
    yield f"time: {outcome.bound()}"
    if recipe.pipeline.min_done_fraction < 1:
        yield "pipeline.min_done_fraction is not simulated: no problem is dropped"
    if outcome.num_engine_losses or outcome.num_learner_losses:
        yield (
            f"lost: {counted(outcome.num_engine_losses, 'engine')}, "
            f"{counted(outcome.num_learner_losses, 'learner rank')}"
        )
    yield ""
    yield from text_timeline(outcome)


def spread(seconds: Sequence[float]) -> str:
    return f"{min(seconds):,.1f} to {max(seconds):,.1f} in {counted(len(seconds), 'steady step')}"


def running(outcome: Outcome, pool: PoolOutcome) -> str:
    mean = outcome.pool_running(pool)
    return f"{mean:,.0f} of {pool.max_running:,} sequences at a time, while busy"


def search_lines(found: Found, recipe: str) -> Iterator[str]:
    """The fastest layout of each number of problems per step, and how to use the best."""
    cells = list(layout_cells(found.rows))
    prompts = [str(row.recipe.method.prompts_per_step) for row in found.rows]
    yield from table(
        [[first, *row] for first, row in zip(["problems", *prompts], cells, strict=True)]
    )
    if found.best.num_slices > 1:
        yield f"(simulated by 1/{found.best.num_slices} of the cluster; below: all of it)"
    yield ""
    if not found.is_busy_enough:
        yield "No step reaches the share of busy GPUs asked for; larger steps may: --max-prompts."
    if not found.best.is_on_policy:
        yield (
            "The next step is sampled while one trains, by the policy before it; --on-policy "
            "leaves such layouts out."
        )
    yield "mgrpo check " + " ".join([recipe, *found.overrides])


def search_json(found: Found) -> dict[str, object]:
    return {
        "search": [row_json(row) for row in found.rows],
        "overrides": found.overrides,
        "is_busy_enough": found.is_busy_enough,
    }


def outcome_json(outcome: Outcome) -> dict[str, object]:
    return {
        "seconds_per_step": outcome.seconds_per_step,
        "step_seconds": outcome.step_seconds,
        "tokens_per_s": outcome.tokens_per_s,
        "busy": outcome.busy_shares,
        "gpus_busy": outcome.gpus_busy,
        "num_gpus": outcome.num_gpus,
        "shares": asdict(outcome.shares()),
        "engine_losses": outcome.num_engine_losses,
        "learner_losses": outcome.num_learner_losses,
    }
