"""The orders in which a step samples and trains its layers (`objective.update_order`).

Each takes the run, the step's number and its sums, and returns every completion that the step
sampled or trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mgrpo.config.layers import corrections_of
from mgrpo.metric_sums import MetricSums
from mgrpo.training.sources.dynamic_sampling import roll_out_mixed
from mgrpo.types import Completion

if TYPE_CHECKING:
    from mgrpo.training.loop import Run

StepOrder = Callable[["Run", int, MetricSums], list[Completion]]


def joint_step(run: Run, step: int, sums: MetricSums) -> list[Completion]:
    """All layers are sampled from one policy, which then takes one step on all of them."""
    dynamic = run.config.sampling.dynamic
    if dynamic is not None:
        completions = roll_out_mixed(run, step, sums, dynamic)
    else:
        completions = run.roll_out(step, run.take_problems(), sums)
    completions = run.update(step, completions, sums)
    run.broadcast(sums)
    return completions


def sequential_step(run: Run, step: int, sums: MetricSums) -> list[Completion]:
    """One update per layer, first to last.

    Refreshed: each layer is sampled from the policy that the layer before left. Snapshot: all
    are sampled first, and importance weights account for the updates in between.
    """
    problems = run.take_problems()
    is_snapshot = run.config.objective.rollout_policy == "snapshot"
    sampled = run.roll_out(step, problems, sums) if is_snapshot else []
    done: list[Completion] = []
    attempts: list[Completion] = []
    for number in range(1, len(run.config.layers) + 1):
        parents = attempts
        if is_snapshot:
            attempts = [one for one in sampled if one.layer == number]
        else:
            layer = range(number, number + 1)
            attempts = run.roll_out(step, problems, sums, layers=layer, attempts=parents)
        attempts = run.update(step, attempts, sums, parents=parents)
        done += attempts
        if not is_snapshot:
            run.broadcast(sums)
    if is_snapshot:
        run.broadcast(sums)
    return done


def alternate_step(run: Run, step: int, sums: MetricSums) -> list[Completion]:
    """Each step trains one layer, in turn; the layers before it are sampled for its prompts."""
    number = step % len(run.config.layers) + 1
    completions = run.roll_out(step, run.take_problems(), sums, layers=range(1, number + 1))
    parents = [one for one in completions if one.layer < number]
    trained = [one for one in completions if one.layer == number]
    trained = run.update(step, trained, sums, parents=parents)
    run.broadcast(sums)
    return parents + trained


def pooled_step(run: Run, step: int, sums: MetricSums) -> list[Completion]:
    """Train layer 1 and keep its errors, or train layer 2 on corrections of kept ones."""
    pool = run.error_pool
    dropped = pool.drop_stale(run.policy_version)
    is_correction = pool.is_due(step, run.config.prompts_per_step)
    parents: list[Completion] = []
    if is_correction:
        problems, parents = pool.take(step, run.config.prompts_per_step)
        completions = run.roll_out(step, problems, sums, layers=range(2, 3), attempts=parents)
    else:
        problems = run.take_problems()
        completions = run.roll_out(step, problems, sums, layers=range(1, 2))
        skip_truncated = corrections_of(run.config.at_step(step).layers)[0].skip_truncated_parents
        num_added = pool.add(problems, completions, skip_truncated=skip_truncated)
        sums.add("error_pool/added", num_added)
    completions = run.update(step, completions, sums, parents=parents)
    run.broadcast(sums)
    sums.add("error_pool/dropped_stale", dropped)
    sums.add("error_pool/size", len(pool))
    sums.add("error_pool/is_correction_step", float(is_correction))
    return parents + completions


def preference_step(run: Run, step: int, sums: MetricSums) -> list[Completion]:
    """Train on rollouts and keep the pairs of them, or train on pairs that were kept."""
    cycle = run.preferences
    if run.config.at_step(step).objective.train_on == "rollouts":
        completions = joint_step(run, step, sums)
        for kind, count in cycle.add(completions).items():
            sums.add(f"pairs/made_{kind}", count)
        sums.add("pairs/waiting", len(cycle.waiting))
        return completions
    if not cycle.is_training_pairs:
        cycle.begin(lambda sides: run.sequence_logprobs(step, sides), len(run.system.problems))
    rows = cycle.take(step)
    if rows:  # otherwise the phase has used its pairs up, and the policy stays as it is
        rows = run.update(step, rows, sums)
        run.broadcast(sums)
    sums.add("pairs/trained", len(rows) // 2)
    sums.add("pairs/of_phase", len(cycle.phase_pairs))
    sums.add("pairs/dropped_problems", len(cycle.dropped))
    return rows


STEP_ORDERS: dict[str, StepOrder] = {
    "joint": joint_step,
    "sequential": sequential_step,
    "alternate_steps": alternate_step,
    "pooled_errors": pooled_step,
    "preference_phases": preference_step,
}
