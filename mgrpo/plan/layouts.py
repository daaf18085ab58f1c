"""The ways to use a number of GPUs, simulated: which is fastest, and the overrides that choose it.

    engines per layer    every layer has engines of its own, the learner has GPUs of its own
    shared engines       one pool of engines serves every layer
    in turn              each GPU has an engine and a learner rank (`cluster.colocate`)

The first two in three orders: synchronous, streamed, one step off (`pipeline.max_staleness_steps`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import ValidationError

from learner.streaming import recipe_obstacles
from mgrpo.config.engines import ONE_ENGINE, EngineRange
from mgrpo.config.explain import explain
from mgrpo.config.overrides import merged
from mgrpo.config.pipeline import PipelineConfig
from mgrpo.errors import ConfigError
from mgrpo.findings import CheckLine
from mgrpo.plan.engine_memory import EngineMemory, engine_memory
from mgrpo.plan.gpus import GpuType
from mgrpo.plan.learner_memory import learner_memory
from mgrpo.plan.rates import roofline_rates
from mgrpo.plan.recipe import PlanRecipe
from mgrpo.plan.shape import ModelShape
from mgrpo.plan.simulated import layout_of, order_of, simulated
from mgrpo.plan.turns import turn_memory
from mgrpo.records.json_object import JsonObject
from mgrpo.simulation.outcome import Outcome
from mgrpo.simulation.rates import Rates

Kind = Literal["engines per layer", "shared engines", "in turn"]
ORDERS: dict[int | None, str] = {None: "synchronous", 0: "streamed", 1: "one step off"}
NUM_STEPS = 4
"""Of a compared layout: one or two of them are steady, depending on the order."""
SLICE_GPUS = 64
"""Layouts of more GPUs are compared by a slice of the cluster, of about as many, with as large a
part of a step's work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all layouts of a comparison have in common."""

    recipe: PlanRecipe
    shape: ModelShape | None  # None: memory is not checked, rates are given
    gpu: GpuType | None
    num_gpus: int
    gpus_per_node: int
    given: JsonObject | None = None  # of `Rates`: what replaces the data sheet's
    seed: int = 0

    @property
    def num_slices(self) -> int:
        """Equal parts of the cluster, one of which is simulated."""
        prompts, slices = self.recipe.method.prompts_per_step, 1
        while self.num_gpus // (2 * slices) >= SLICE_GPUS and prompts % (2 * slices) == 0:
            slices *= 2
        return slices


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutOutcome:
    """One layout in one order, simulated."""

    kind: str
    order: str
    recipe: PlanRecipe
    outcome: Outcome  # of one slice
    num_slices: int = 1

    @property
    def tokens_per_s(self) -> float:
        """Of all GPUs."""
        return self.outcome.tokens_per_s * self.num_slices

    @property
    def is_on_policy(self) -> bool:
        """Whether its updates are the synchronous order's."""
        return not self.recipe.pipeline.samples_ahead

    @property
    def gpus(self) -> str:
        """ "2 + 2 + 4": engines' GPUs by pool, and the learner's."""
        layout = layout_of(self.recipe)
        if layout.is_colocated:
            return f"{layout.num_ranks} for both"
        pools = [count * layout.gpus_per_engine for count in layout.num_engines]
        return " + ".join(str(count) for count in [*pools, layout.num_ranks])


def compare_layouts(ground: Ground) -> list[LayoutOutcome]:
    """Every layout and order that the GPUs and the recipe's parts allow, each with its best
    division of GPUs, fastest first."""
    found = [
        best
        for kind, bound in possible(ground.recipe)
        if (best := best_division(ground, kind, bound)) is not None
    ]
    return sorted(found, key=lambda one: -one.tokens_per_s)


def own_layout(recipe: PlanRecipe, outcome: Outcome) -> LayoutOutcome:
    """A recipe as it is, as a row beside others."""
    order = order_of(recipe)
    ahead = order.staleness_steps
    bound = ahead if ahead or order.streams else None
    name = ORDERS.get(bound, f"{ahead} steps off")
    return LayoutOutcome(kind="this recipe", order=name, recipe=recipe, outcome=outcome)


def recommendations(
    own: LayoutOutcome | None, layouts: Sequence[LayoutOutcome]
) -> Iterator[CheckLine]:
    """The fastest layout, and the fastest of those with the synchronous order's updates."""
    on_policy = [one for one in layouts if one.is_on_policy]
    for name, rows in (("fastest", layouts[:1]), ("fastest on policy", on_policy[:1])):
        for best in rows:
            if own is None or best.tokens_per_s <= own.tokens_per_s:
                yield CheckLine("ok", name, "no other layout is faster (simulated)")
                continue
            keys = " ".join(overrides_of(own.recipe, best.recipe))
            factor = best.tokens_per_s / own.tokens_per_s
            yield CheckLine(
                "ok",
                name,
                f"{best.kind}, {best.order}, {best.gpus} GPUs: {factor:.2f} times this recipe's "
                f"tokens a second (simulated). {keys}",
            )
        if layouts and layouts[0].is_on_policy:
            return


def possible(recipe: PlanRecipe) -> Iterator[tuple[Kind, int | None]]:
    """Kinds and staleness bounds that the recipe's parts allow."""
    kinds: list[Kind] = ["shared engines"]
    if len(recipe.layers) > 1:
        kinds.insert(0, "engines per layer")
    joint = recipe.method.objective.update_order.type == "joint"
    for kind in kinds:
        yield kind, None
        if not recipe_obstacles(recipe.method):
            yield kind, 0
        if joint:
            yield kind, 1
    if recipe.engines.tensor_parallel_size == 1:
        yield "in turn", None


def best_division(ground: Ground, kind: Kind, bound: int | None) -> LayoutOutcome | None:
    """The fastest division of the GPUs that fits their memory, by hill climbing.

    It starts where every part has GPUs in proportion to its work and moves GPUs from one part to
    another as long as that is faster.
    """
    tried: dict[tuple[int, ...], LayoutOutcome | None] = {}

    def outcome_of(parts: tuple[int, ...]) -> LayoutOutcome | None:
        if parts not in tried:
            tried[parts] = try_division(ground, kind, bound, parts)
        return tried[parts]

    def speed(parts: tuple[int, ...]) -> float:
        found = outcome_of(parts)
        return 0.0 if found is None else found.tokens_per_s

    if kind == "in turn":
        return outcome_of((ground.num_gpus,))
    count = 2 if kind == "shared engines" else len(ground.recipe.layers) + 1
    unit = ground.recipe.engines.tensor_parallel_size * ground.num_slices
    units, rest = divmod(ground.num_gpus, unit)
    if units < count:
        return None
    start = divided([1.0] * count, units)
    found = outcome_of(in_gpus(start, unit, rest))
    best = start if found is None else divided(work_of(found.outcome), units)
    while True:
        parts = best
        best = max([parts, *neighbours(parts)], key=lambda one: speed(in_gpus(one, unit, rest)))
        if best == parts:
            return outcome_of(in_gpus(best, unit, rest))


def in_gpus(parts: Sequence[int], unit: int, rest: int) -> tuple[int, ...]:
    """Units as GPUs; the learner, which is last, also gets the rest."""
    return (*(part * unit for part in parts[:-1]), parts[-1] * unit + rest)


def work_of(outcome: Outcome) -> list[float]:
    """GPU-seconds of work of each part in a step: its pools', the learner's."""
    pools = [pool.num_gpus * outcome.pool_busy(pool) for pool in outcome.pools]
    return [*pools, outcome.num_ranks * outcome.learner_busy]


def divided(work: Sequence[float], units: int) -> tuple[int, ...]:
    """Units of GPUs in proportion to work, one or more for each part."""
    parts = [1] * len(work)
    for _ in range(units - len(work)):
        neediest = max(range(len(work)), key=lambda n: work[n] / parts[n])
        parts[neediest] += 1
    return tuple(parts)


def neighbours(parts: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Divisions in which one part has a unit more and another one less."""
    for giver in range(len(parts)):
        for taker in range(len(parts)):
            if giver != taker and parts[giver] > 1:
                moved = list(parts)
                moved[giver] -= 1
                moved[taker] += 1
                yield tuple(moved)


def try_division(
    ground: Ground, kind: Kind, bound: int | None, parts: Sequence[int]
) -> LayoutOutcome | None:
    """One division, simulated; None where it does not fit into memory."""
    recipe = with_layout(ground.recipe, kind, bound, parts)
    rates = rates_of(ground, recipe)
    if rates is None:
        return None
    outcome = simulated(
        recipe, rates, num_steps=NUM_STEPS, seed=ground.seed, num_slices=ground.num_slices
    )
    return LayoutOutcome(
        kind=kind,
        order=ORDERS[bound],
        recipe=recipe,
        outcome=outcome,
        num_slices=ground.num_slices,
    )


def rates_of(ground: Ground, recipe: PlanRecipe) -> Rates | None:
    """The rates of a layout; None where its memory does not suffice, or its speed is not known."""
    sheet: Rates | None = None
    if ground.shape is not None and ground.gpu is not None:
        engine = engine_memory(recipe, ground.shape, ground.gpu)
        if not fits(recipe, ground.shape, ground.gpu, engine):
            return None
        sheet = roofline_rates(recipe, ground.shape, ground.gpu, engine, ground.gpus_per_node)
    if ground.given is None:
        return sheet
    return with_given(sheet, ground.given)


def fits(recipe: PlanRecipe, shape: ModelShape, gpu: GpuType, engine: EngineMemory) -> bool:
    """Whether learner and engines fit into a GPU's memory."""
    learner = learner_memory(recipe, shape)
    turns = turn_memory(recipe, shape, learner, engine)
    used = learner.total if turns is None else turns.largest.num_bytes
    return used <= gpu.memory_bytes and engine.cache_tokens >= engine.context_tokens


def with_given(sheet: Rates | None, given: JsonObject) -> Rates:
    """Rates with given keys in place of the data sheet's.

    Raises:
        ConfigError: a key is wrong, or one that nothing else knows is missing.
    """
    tree = merged(sheet.model_dump(mode="json") if sheet else {}, given)
    try:
        return Rates.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain(error, Rates), source="the rates") from error


def with_layout(
    recipe: PlanRecipe, kind: Kind, bound: int | None, parts: Sequence[int]
) -> PlanRecipe:
    """The recipe with another division of GPUs and order.

    Args:
        parts: GPUs of each pool of engines, then the learner's; in turn: all of them.
    """
    ways, ranks = recipe.engines.tensor_parallel_size, parts[-1]
    is_shared, in_turn = kind != "engines per layer", kind == "in turn"
    counts = [EngineRange(min=part // ways, max=part // ways) for part in parts]
    engines: dict[str, object] = {"shared": is_shared}
    if is_shared:
        engines["num_shared_engines"] = counts[0]
        counts = [ONE_ENGINE] * (len(recipe.layers) + 1)  # own numbers would have no effect
    layers = [
        layer.model_copy(update={"num_engines": count})
        for layer, count in zip(recipe.layers, counts[:-1], strict=True)
    ]
    learner: dict[str, object] = {"num_ranks": ranks}
    if in_turn:
        learner["zero_stage"] = 2
    return replace(
        recipe,
        layers=layers,
        engines=recipe.engines.model_copy(update=engines),
        learner=recipe.learner.model_copy(update=learner),
        cluster=recipe.cluster.model_copy(update={"colocate": in_turn}),
        pipeline=PipelineConfig(
            max_staleness_steps=bound,
            new_weights=recipe.pipeline.new_weights if bound else "between_steps",
        ),
    )


def overrides_of(before: PlanRecipe, recipe: PlanRecipe) -> list[str]:
    """The keys by which a layout differs from the recipe, as `mgrpo check` takes them."""
    keys: dict[str, tuple[object, object]] = {
        "prompts_per_step": (before.method.prompts_per_step, recipe.method.prompts_per_step),
        "engines.shared": (before.engines.shared, recipe.engines.shared),
        "learner.num_ranks": (before.learner.num_ranks, recipe.learner.num_ranks),
        "learner.zero_stage": (before.learner.zero_stage, recipe.learner.zero_stage),
        "cluster.colocate": (before.cluster.colocate, recipe.cluster.colocate),
        "pipeline.max_staleness_steps": (
            before.pipeline.max_staleness_steps,
            recipe.pipeline.max_staleness_steps,
        ),
    }
    for key in ("new_weights", "min_done_fraction"):
        keys[f"pipeline.{key}"] = (getattr(before.pipeline, key), getattr(recipe.pipeline, key))
    if recipe.engines.shared:
        keys["engines.num_shared_engines"] = (before.engines.pool, recipe.engines.pool)
    for old, new in zip(before.layers, recipe.layers, strict=True):
        keys[f"layers.{new.name}.num_engines"] = (old.num_engines, new.num_engines)
    return [f"{key}={as_yaml(new)}" for key, (old, new) in keys.items() if old != new]


def as_yaml(value: object) -> str:
    if isinstance(value, EngineRange):
        return str(value.min)
    return "null" if value is None else str(value).lower()
