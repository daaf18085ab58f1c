"""The best layout of a recipe for a cluster, over numbers of problems per step too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mgrpo.plan.layouts import Ground, LayoutOutcome, compare_layouts, overrides_of, rates_of
from mgrpo.plan.recipe import PlanRecipe
from mgrpo.plan.simulated import simulated
from mgrpo.simulation.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search found."""

    rows: Sequence[LayoutOutcome]  # the fastest layout of each number of problems; a slice's
    best: LayoutOutcome
    overrides: list[str]  # that make the recipe the best one
    outcome: Outcome  # of the best layout on all GPUs
    is_busy_enough: bool


def search(
    ground: Ground, *, max_prompts: int, target_busy: float, num_steps: int, on_policy: bool
) -> Found | None:
    """The smallest step that keeps the GPUs busy, in its fastest layout; without one the fastest.

    Args:
        max_prompts: steps of 1, 2, 4, ... times the recipe's problems, up to as many.
        target_busy: share of the GPUs' time.
        num_steps: of the last simulation, of the whole cluster.
        on_policy: leave out layouts that train on completions of an older policy.

    Returns:
        None where nothing fits the GPUs.
    """
    rows: list[LayoutOutcome] = []
    is_busy_enough = False
    for recipe in steps_of(ground.recipe, max_prompts):
        found = [
            one
            for one in compare_layouts(replace(ground, recipe=recipe))
            if one.is_on_policy or not on_policy
        ]
        rows += found[:1]
        is_busy_enough = bool(found) and found[0].outcome.gpus_busy >= target_busy
        if is_busy_enough:
            break
    if not rows:
        return None
    best = rows[-1] if is_busy_enough else max(rows, key=lambda one: one.tokens_per_s)
    rates = rates_of(ground, best.recipe)
    assert rates is not None, "the layout was simulated"
    outcome = simulated(best.recipe, rates, num_steps=num_steps, seed=ground.seed)
    return Found(
        rows=rows,
        best=best,
        overrides=overrides_of(ground.recipe, best.recipe),
        outcome=outcome,
        is_busy_enough=outcome.gpus_busy >= target_busy,
    )


def steps_of(recipe: PlanRecipe, max_prompts: int) -> Iterator[PlanRecipe]:
    """The recipe with 1, 2, 4, ... times its problems per step."""
    prompts = recipe.method.prompts_per_step
    while prompts <= max(max_prompts, recipe.method.prompts_per_step):
        yield replace(recipe, method=replace(recipe.method, prompts_per_step=prompts))
        prompts *= 2
