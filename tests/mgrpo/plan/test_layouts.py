"""Compared layouts: what may be compared, the division of GPUs, and overrides that are valid."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mgrpo.config.load import load_recipe
from mgrpo.plan.gpus import parse_gpus
from mgrpo.plan.layouts import (
    Ground,
    LayoutOutcome,
    best_division,
    compare_layouts,
    divided,
    overrides_of,
    own_layout,
    possible,
    recommendations,
    with_layout,
)
from mgrpo.plan.recipe import PlanRecipe, plan_recipe
from mgrpo.plan.search import search
from mgrpo.plan.shape import qwen25_shape
from mgrpo.plan.simulated import layout_of, order_of

RATES = {
    "engine": {"step_s": 0.01, "max_running": 64},
    "learner": {"token_s": 1e-3},
    "weights_s": 0.1,
}
SMALL = (
    "prompts_per_step=8",
    "layers.solve.max_completion_tokens=64",
    "layers.correct.max_completion_tokens=64",
)


def recipe_of(*overrides: str) -> PlanRecipe:
    return plan_recipe(load_recipe("qwen2.5_math_7b", [*SMALL, *overrides]))


def ground_of(recipe: PlanRecipe, num_gpus: int = 4) -> Ground:
    return Ground(
        recipe=recipe, shape=None, gpu=None, num_gpus=num_gpus, gpus_per_node=8, given=RATES
    )


def test_the_shipped_recipe_has_the_fastest_layout_of_its_node() -> None:
    recipe = plan_recipe(load_recipe("qwen2.5_math_7b"))
    ground = Ground(
        recipe=recipe,
        shape=qwen25_shape("7B"),
        gpu=parse_gpus("H100-80GB")[1],
        num_gpus=8,
        gpus_per_node=8,
    )
    best = best_division(ground, "shared engines", 1)
    assert best is not None and overrides_of(recipe, best.recipe) == []
    (line,) = [one for one in recommendations(best, [best]) if one.name == "fastest"]
    assert "no other layout is faster" in line.detail
    others = [best_division(ground, "in turn", None), best_division(ground, "shared engines", 0)]
    assert all(one and one.tokens_per_s < 0.75 * best.tokens_per_s for one in others)


@pytest.fixture(scope="module")
def compared() -> list[LayoutOutcome]:
    return compare_layouts(ground_of(recipe_of()))


def test_all_layouts_are_compared_with_all_gpus_and_the_fastest_is_first(
    compared: list[LayoutOutcome],
) -> None:
    found = compared
    assert {(one.kind, one.order) for one in found} == {
        *(("engines per layer", order) for order in ("synchronous", "streamed", "one step off")),
        *(("shared engines", order) for order in ("synchronous", "streamed", "one step off")),
        ("in turn", "synchronous"),
    }
    speeds = [one.tokens_per_s for one in found]
    assert speeds == sorted(speeds, reverse=True)
    assert all(one.outcome.num_gpus == 4 for one in found)


def test_the_overrides_of_a_layout_are_valid_and_give_it(compared: list[LayoutOutcome]) -> None:
    recipe = recipe_of()
    for chosen in (one.recipe for one in compared):
        again = recipe_of(*overrides_of(recipe, chosen))
        assert layout_of(again) == layout_of(chosen)
        assert order_of(again) == order_of(chosen)


def test_parts_that_forbid_an_order_leave_it_out() -> None:
    sequential = recipe_of("objective.update_order=sequential", "pipeline.max_staleness_steps=auto")
    assert {bound for _, bound in possible(sequential)} == {None}
    minibatches = recipe_of("objective.minibatches=2")
    assert {bound for _, bound in possible(minibatches)} == {None, 1}
    wide = recipe_of("engines.tensor_parallel_size=2")
    assert "in turn" not in {kind for kind, _ in possible(wide)}


def test_gpus_are_divided_in_proportion_to_work() -> None:
    assert divided([1.0, 3.0], 8) == (2, 6)
    assert divided([0.0, 1.0, 1.0], 7) == (1, 3, 3)


def test_a_pool_for_all_layers_takes_back_the_layers_own_numbers() -> None:
    before = recipe_of("engines.shared=false", "layers.solve.num_engines=2")
    shared = with_layout(before, "shared engines", 1, (3, 5))
    assert set(overrides_of(before, shared)) == {
        "engines.shared=true",
        "layers.solve.num_engines=1",
    }
    own = with_layout(before, "engines per layer", None, (1, 2, 5))
    assert set(overrides_of(before, own)) == {
        "layers.solve.num_engines=1",
        "layers.correct.num_engines=2",
        "pipeline.max_staleness_steps=null",
    }


def test_large_clusters_are_compared_by_a_slice() -> None:
    ground = ground_of(replace_prompts(recipe_of(), 64), num_gpus=1024)
    assert ground.num_slices == 16
    row = best_division(ground, "in turn", None)
    assert row is not None
    assert row.gpus == "1024 for both" and row.outcome.num_gpus == 64
    assert row.tokens_per_s == pytest.approx(16 * row.outcome.tokens_per_s)
    assert ground_of(replace_prompts(recipe_of(), 3), num_gpus=1024).num_slices == 1


def replace_prompts(recipe: PlanRecipe, prompts: int) -> PlanRecipe:
    return replace(recipe, method=replace(recipe.method, prompts_per_step=prompts))


def test_a_search_takes_the_smallest_step_that_keeps_gpus_busy() -> None:
    ground = ground_of(recipe_of())
    found = search(ground, max_prompts=64, target_busy=0.5, num_steps=4, on_policy=False)
    assert found is not None and found.is_busy_enough
    assert found.rows[-1] is found.best
    assert all(row.outcome.gpus_busy < 0.5 for row in found.rows[:-1])
    assert found.outcome.gpus_busy >= 0.5


def test_a_search_that_finds_no_busy_step_gives_the_fastest() -> None:
    ground = ground_of(recipe_of())
    found = search(ground, max_prompts=16, target_busy=1.0, num_steps=4, on_policy=True)
    assert found is not None and not found.is_busy_enough
    assert [row.recipe.method.prompts_per_step for row in found.rows] == [8, 16]
    assert found.best.is_on_policy
    assert found.best.tokens_per_s == max(row.tokens_per_s for row in found.rows)


def test_a_search_where_nothing_fits_finds_nothing() -> None:
    recipe = recipe_of()
    ground = Ground(
        recipe=recipe,
        shape=qwen25_shape("72B"),
        gpu=parse_gpus("L4")[1],
        num_gpus=8,
        gpus_per_node=8,
    )
    assert search(ground, max_prompts=8, target_busy=0.9, num_steps=2, on_policy=False) is None


def test_a_recommendation_off_policy_also_names_the_fastest_on_policy(
    compared: list[LayoutOutcome],
) -> None:
    own = own_layout(compared[-1].recipe, compared[-1].outcome)
    off = [one for one in compared if not one.is_on_policy]
    on = [one for one in compared if one.is_on_policy]
    assert [line.name for line in recommendations(own, [*off, *on])] == [
        "fastest",
        "fastest on policy",
    ]
    (line,) = recommendations(own, on)
    assert "times this recipe's tokens a second" in line.detail
