"""Builds a plan: places every allocation, estimates its memory, and collects warnings."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cluster.allocations import Allocation, plan_allocations
from cluster.fit import Fit, fit, reasons
from mgrpo.errors import ConfigError, ConfigFault
from mgrpo.findings import CheckLine
from mgrpo.plan.assessment import Found, assess
from mgrpo.plan.batch import LayerBatch, layer_batches, learner_tokens
from mgrpo.plan.engine_memory import EngineMemory, engine_memory
from mgrpo.plan.gpus import GpuType
from mgrpo.plan.hardware import Hardware
from mgrpo.plan.layouts import LayoutOutcome, own_layout
from mgrpo.plan.learner_memory import learner_memory
from mgrpo.plan.memory import MemoryUse
from mgrpo.plan.rates import roofline_rates
from mgrpo.plan.recipe import PlanRecipe
from mgrpo.plan.rows import GpuRow, gpu_rows, gpu_use
from mgrpo.plan.shape import ModelShape
from mgrpo.plan.simulated import simulated
from mgrpo.plan.turns import turn_memory

NUM_STEPS = 4  # that are simulated; one or two of them are steady


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan's content."""

    recipe: str
    hardware: str
    shape: ModelShape
    rows: list[GpuRow]
    learner: MemoryUse
    engine: EngineMemory
    turns: MemoryUse | None  # memory in each turn, if engines and learner share GPUs
    batches: list[LayerBatch]
    learner_tokens: int  # at most, per step
    own: LayoutOutcome | None  # simulated; None: it cannot be placed, or speeds are not known
    lines: list[CheckLine]  # errors and warnings

    @property
    def fails(self) -> bool:
        return any(line.status == "fail" for line in self.lines)


def make_plan(
    recipe: PlanRecipe, shape: ModelShape, hardware: Hardware, *, layout: str = ""
) -> Plan:
    """Place every allocation and collect errors and warnings.

    Args:
        layout: the layout chosen for the recipe (`mgrpo.plan.layout`), in words.

    Raises:
        ConfigError: the recipe is for CPUs, or the hardware has no GPU.
    """
    refuse_cpus(recipe, hardware)
    allocations = plan_allocations(recipe, "cuda")
    if not hardware.has_labels:
        allocations = [without_labels(allocation) for allocation in allocations]
    nodes = hardware.nodes
    found = fit(allocations, nodes)
    if found.left_out:
        nodes = hardware.grown
        found = fit(allocations, nodes)
    learner_gpu, engine_gpu = smallest_gpus(found, hardware)
    engine = engine_memory(recipe, shape, engine_gpu)
    learner = learner_memory(recipe, shape)
    rates = None
    if learner_gpu == engine_gpu and not found.left_out:
        rates = roofline_rates(recipe, shape, engine_gpu, engine, hardware.gpus_per_node)
    outcome = None if rates is None else simulated(recipe, rates, num_steps=NUM_STEPS)
    turns = turn_memory(recipe, shape, learner, engine)
    rows = gpu_rows(recipe, found, nodes, hardware, gpu_use(learner, engine, turns))
    decided = [CheckLine("ok", "layout", layout)] if layout else []
    lines = decided + assess(
        Found(
            recipe=recipe,
            shape=shape,
            hardware=hardware,
            rows=rows,
            left_out=[(group, reasons(group, nodes)) for group in found.left_out],
            learner=learner,
            learner_gpu=learner_gpu,
            engine=engine,
            engine_gpu=engine_gpu,
            turns=turns,
            batches=layer_batches(recipe),
            outcome=outcome,
        )
    )
    return Plan(
        recipe=recipe.name,
        hardware=hardware.description,
        shape=shape,
        rows=rows,
        learner=learner,
        engine=engine,
        turns=turns,
        batches=layer_batches(recipe),
        learner_tokens=learner_tokens(recipe),
        own=None if outcome is None else own_layout(recipe, outcome),
        lines=lines,
    )


def refuse_cpus(recipe: PlanRecipe, hardware: Hardware) -> None:
    faults = []
    if recipe.cluster.device == "cpu":
        faults.append(
            ConfigFault(
                "cluster.device",
                "cpu",
                "a plan is about GPUs, and this recipe runs on CPUs.",
                "Use `mgrpo check`, or add cluster.device=cuda.",
            )
        )
    if not hardware.gpus:
        faults.append(ConfigFault("--cluster", hardware.description, "has no GPU."))
    if faults:
        raise ConfigError(faults)


def without_labels(allocation: Allocation) -> Allocation:
    """CPUs of hardware of which only the GPUs are known."""
    bundles = tuple({k: v for k, v in b.items() if k in ("CPU", "GPU")} for b in allocation.bundles)
    return replace(allocation, bundles=bundles, labels={})


def smallest_gpus(found: Fit, hardware: Hardware) -> tuple[GpuType, GpuType]:
    """The learner's and the engines' GPU; of several kinds, the smallest."""
    chosen = []
    for is_learner in (True, False):
        kinds = [
            hardware.gpus[one.node]
            for one in found.placed
            if one.allocation.is_learner == is_learner and one.gpus
        ]
        chosen.append(min(kinds or hardware.gpus.values(), key=lambda gpu: gpu.memory_bytes))
    return chosen[0], chosen[1]
