"""A recipe as the simulation takes it: workload, layout, order."""

from __future__ import annotations

from dataclasses import replace

from learner.streaming import recipe_obstacles
from mgrpo.config import LaterLayer, LayerConfig
from mgrpo.plan.batch import CORRECTION_TOKENS
from mgrpo.plan.rates import LENGTH_SHARE
from mgrpo.plan.recipe import PlanRecipe
from mgrpo.simulation.outcome import Outcome
from mgrpo.simulation.rates import LayerData, Rates
from mgrpo.simulation.simulator import Layout, Order, simulate
from mgrpo.simulation.workload import LayerWork, LognormalLengths, Workload


def simulated(
    recipe: PlanRecipe,
    rates: Rates,
    *,
    num_steps: int,
    seed: int = 0,
    num_slices: int = 1,
) -> Outcome:
    """A run of the recipe.

    Args:
        num_slices: equal parts of the work and of the GPUs, one of which is simulated. The last
            completions of a slice end a little earlier than those of the whole.
    """
    work, layout, order = workload_of(recipe, rates), layout_of(recipe), order_of(recipe)
    return simulate(
        replace(work, prompts_per_step=work.prompts_per_step // num_slices),
        replace(
            layout,
            num_engines=[count // num_slices for count in layout.num_engines],
            num_ranks=layout.num_ranks // num_slices,
        ),
        replace(order, least_tokens=order.least_tokens / num_slices),
        rates,
        num_steps=num_steps,
        seed=seed,
    )


def workload_of(recipe: PlanRecipe, rates: Rates) -> Workload:
    """A step's work. Where nothing else is known lengths are lognormal around half of the layer's
    maximum, all attempts that may be corrected are, and all completions train."""
    prompt_tokens = round(LENGTH_SHARE * recipe.max_prompt_tokens)
    return Workload(
        prompts_per_step=recipe.method.prompts_per_step,
        prompt_tokens=rates.prompt_tokens or max(1, prompt_tokens),
        layers=[
            layer_work(layer, rates.layers.get(layer.name, LayerData())) for layer in recipe.layers
        ],
        merges_prefixes=recipe.learner.merge_prefixes,
    )


def layer_work(layer: LayerConfig, known: LayerData) -> LayerWork:
    corrects, most = isinstance(layer, LaterLayer), layer.max_completion_tokens
    added = CORRECTION_TOKENS if corrects else 0
    trained = 1.0 if known.trained_share is None else known.trained_share
    return LayerWork(
        name=layer.name,
        group_size=layer.group_size,
        max_tokens=most,
        lengths=known.lengths or LognormalLengths(mean=LENGTH_SHARE * most),
        added_prompt_tokens=added
        if known.added_prompt_tokens is None
        else known.added_prompt_tokens,
        max_parents=layer.max_parents if isinstance(layer, LaterLayer) else None,
        parent_share=1.0 if known.parent_share is None else known.parent_share,
        skips_truncated=isinstance(layer, LaterLayer) and layer.skip_truncated_parents,
        trained_share=trained if layer.loss_weight > 0 else 0.0,
    )


def layout_of(recipe: PlanRecipe) -> Layout:
    """The recipe's engines and ranks."""
    engines = recipe.engines
    counts = (
        [engines.pool.min] if engines.shared else [layer.num_engines.min for layer in recipe.layers]
    )
    return Layout(
        num_engines=counts,
        num_ranks=recipe.learner.num_ranks,
        gpus_per_engine=engines.tensor_parallel_size,
        is_colocated=recipe.cluster.takes_turns,
    )


def order_of(recipe: PlanRecipe) -> Order:
    """The recipe's `pipeline.max_staleness_steps`, as on GPUs."""
    streams = recipe.pipeline.streams_on("cuda", recipe.cluster)
    microbatch = recipe.learner.microbatch_tokens
    return Order(
        staleness_steps=recipe.pipeline.num_ahead,
        new_weights=recipe.pipeline.new_weights,
        streams=streams and not recipe_obstacles(recipe.method),
        least_tokens=microbatch * recipe.learner.num_ranks,
        microbatch_tokens=microbatch,
        checkpoint_every=recipe.checkpoint_every,
        evaluate_every=recipe.evaluate_every,
    )
