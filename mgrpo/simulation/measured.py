"""Rates and lengths of a run that has been, from its metrics and recorded completions.

The time of its updates gives a token's, its lengths are those of its rollout files, and the speed
of its engines is chosen so that the simulated sampling takes as long as the measured one: all times
of a decode step are scaled by one factor. How they divide into what every decode step takes and
what a sequence adds cannot be seen in a run, so that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

from mgrpo.config.layers import LayerConfig
from mgrpo.errors import RunDirectoryError
from mgrpo.metrics.log import read_metrics, read_rollouts, rollout_paths
from mgrpo.metrics.rows import Row
from mgrpo.simulation.rates import EngineRates, LayerData, LearnerRates, Rates
from mgrpo.simulation.simulator import Layout, Order, simulate
from mgrpo.simulation.workload import EmpiricalLengths, FixedLengths, Lengths, Tree, Workload

NUM_WARM_UP = 2
CPU_STEP_S, CPU_SEQUENCE_S = 5e-3, 0.18e-3
"""Of a decode step of vLLM's CPU build on two cores; only their ratio matters here."""
SCALE_STEPS = 3  # that are simulated for the factor
NEEDED = ("seconds/step", "seconds/rollout", "seconds/update", "learner/input_tokens")

WorkOf = Callable[[Rates], Workload]
"""The step of the run's own recipe, with what is known of its completions."""


def steady_rows(run_dir: Path) -> list[Row]:
    """The run's steps without its first ones, and without its last if that has none beside it.

    Raises:
        RunDirectoryError: there are none, or they have no times.
    """
    rows = read_metrics(run_dir)[NUM_WARM_UP:]
    if rows and any("pipeline/staleness_max" in row for row in rows):
        rows = rows[:-1]
    if not rows:
        raise RunDirectoryError(
            f"{run_dir} has too few steps to measure: the first {NUM_WARM_UP} are warm-up. Train "
            f"{NUM_WARM_UP + 3} or more."
        )
    missing = sorted({name for name in NEEDED for row in rows if row.get(name) is None})
    if missing:
        raise RunDirectoryError(
            f"{run_dir}/metrics.jsonl has no {', '.join(missing)}: this run cannot be measured."
        )
    return rows


def measured_rates(
    run_dir: Path,
    layers: Sequence[LayerConfig],
    layout: Layout,
    *,
    work_of: WorkOf,
    max_running: int,
    engine: EngineRates | None = None,
) -> Rates:
    """
    Args:
        layers: of the run's recipe.
        layout: of the run.
        max_running: sequences at a time in one engine.
        engine: rates in the right proportion to each other; None: those of a CPU.

    Raises:
        RunDirectoryError: the run has too few steps, or no times.
    """
    rows = steady_rows(run_dir)
    engine = engine or EngineRates(
        step_s=CPU_STEP_S, sequence_s=CPU_SEQUENCE_S, max_running=max_running
    )
    rates = Rates(
        engine=engine,
        learner=LearnerRates(token_s=0.0),
        prompt_tokens=max(1, round(average(rows, "layer1/prompt_tokens_mean"))),
        layers=layer_data(run_dir, rows, layers),
    )
    work = work_of(rates)
    share = average(rows, "learner/input_tokens") / learner_tokens(work)
    known = {
        name: data.model_copy(update={"trained_share": share})
        for name, data in rates.layers.items()
    }
    update_s = average(rows, "seconds/update") + average(rows, "pipeline/hidden_update_s")
    factor = average(rows, "seconds/rollout") / sampling_seconds(work, layout, rates)
    return rates.model_copy(
        update={
            "engine": scaled(engine, factor),
            "learner": LearnerRates(
                token_s=update_s * layout.num_ranks / average(rows, "learner/input_tokens")
            ),
            "weights_s": mean(rest_seconds(row) for row in rows),
            "layers": known,
        }
    )


def average(rows: Sequence[Row], name: str) -> float:
    """The mean of a metric; a step without it counts as 0."""
    return mean(float(row.get(name) or 0.0) for row in rows)


def rest_seconds(row: Row) -> float:
    """What a step takes beside sampling and its update: weights, and the driver's own time."""
    parts = (row["seconds/rollout"], row["seconds/update"])
    overlaps = "pipeline/staleness_max" in row
    return max(0.0, float(row["seconds/step"]) - (max(parts) if overlaps else sum(parts)))


def layer_data(
    run_dir: Path, rows: Sequence[Row], layers: Sequence[LayerConfig]
) -> dict[str, LayerData]:
    """Lengths, prompts and shares of corrected attempts, by layer."""
    recorded = recorded_lengths(run_dir, first_step=rows[0]["step"])
    found: dict[str, LayerData] = {}
    for number, layer in enumerate(layers, start=1):
        this, before = f"layer{number}", f"layer{number - 1}"
        mean_tokens = max(1, round(average(rows, f"{this}/completion_tokens_mean")))
        lengths: Lengths = FixedLengths(tokens=mean_tokens)
        if recorded.get(number):
            lengths = EmpiricalLengths(tokens=recorded[number])
        data = LayerData(lengths=lengths)
        if number > 1:
            attempts = average(rows, f"{before}/completions")
            quoted = average(rows, "layer1/prompt_tokens_mean") + average(
                rows, f"{before}/completion_tokens_mean"
            )
            added = average(rows, f"{this}/prompt_tokens_mean") - quoted
            corrected = average(rows, f"{this}/completions") / layer.group_size
            data = LayerData(
                lengths=lengths,
                added_prompt_tokens=max(0, round(added)),
                parent_share=min(1.0, corrected / usable(attempts, rows, before, layer)),
            )
        found[layer.name] = data
    return found


def usable(attempts: float, rows: Sequence[Row], before: str, layer: LayerConfig) -> float:
    """Attempts that may be corrected."""
    if getattr(layer, "skip_truncated_parents", False):
        attempts *= 1 - average(rows, f"{before}/truncated_fraction")
    most = getattr(layer, "max_parents", None)
    trees = average(rows, "layer1/completions") or 1.0
    return max(1.0, attempts if most is None else min(attempts, most * trees))


def recorded_lengths(run_dir: Path, *, first_step: int) -> dict[int, list[int]]:
    """Completion lengths by the number of their layer, of the steps whose completions are kept."""
    found: dict[int, list[int]] = {}
    for step, path in rollout_paths(run_dir).items():
        if step >= first_step:
            for one in read_rollouts(path):
                found.setdefault(one.layer, []).append(max(1, len(one.token_ids)))
    return found


def learner_tokens(work: Workload) -> float:
    """Mean tokens of a step for the learner."""
    trees = [
        Tree(work, seed=0, step=step, slot=slot)
        for step in range(SCALE_STEPS)
        for slot in range(work.prompts_per_step)
    ]
    for tree in trees:
        while tree.next_layer():
            pass
    return sum(tree.learner_tokens for tree in trees) / SCALE_STEPS


def sampling_seconds(work: Workload, layout: Layout, rates: Rates) -> float:
    """Mean of a step, with a learner that takes no time."""
    outcome = simulate(work, layout, Order(), rates, num_steps=SCALE_STEPS)
    return outcome.ends_s[-1] / SCALE_STEPS


def scaled(engine: EngineRates, factor: float) -> EngineRates:
    """An engine that takes `factor` times as long."""
    names = ("step_s", "arithmetic_s", "sequence_s", "context_s", "prefill_s")
    return engine.model_copy(update={name: factor * getattr(engine, name) for name in names})
