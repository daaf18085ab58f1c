"""The orders in which a step samples and trains its layers (`objective.update_order`).

Each is a short program over the same three verbs: sample, update, broadcast. It returns every
completion that the step sampled or trained on, but not the work's parents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from mgrpo.config import MethodView
from mgrpo.config.learner import Sequential
from mgrpo.errors import LearnerError
from mgrpo.metric_sums import MetricSums
from mgrpo.training.sampling import Sampling
from mgrpo.training.sources.source import Work, Workers
from mgrpo.types import Completion, Replayed


class StepWorkers(Workers, Protocol):
    """Engines and learner, as a step uses them."""

    method: MethodView

    def update(
        self,
        step: int,
        completions: Sequence[Completion],
        sums: MetricSums,
        *,
        parents: Sequence[Completion] = (),
        replayed: Sequence[Replayed] = (),
    ) -> list[Completion]:
        """One update of the policy; the completions come back with what was decided of each.

        Args:
            parents: known to the update; they do not train in it.
            replayed: of earlier steps; they train again.
        """
        ...

    def streams(self, step: int) -> bool:
        """Whether the learner may train on a step's problems while others are sampled."""
        ...

    def sample_and_update(self, step: int, work: Work, sums: MetricSums) -> list[Completion]:
        """Sample the work and make one update of it, side by side; everything that trained."""
        ...

    def begin(self, step: int, work: Work) -> Sampling:
        """Begin to sample a step's work; it goes on whenever engines or learner work."""
        ...

    def finish(self, sampling: Sampling, sums: MetricSums) -> list[Completion]:
        """Wait for what was begun; its completions."""
        ...

    def update_beside(self, step: int, work: Work, sums: MetricSums) -> list[Completion]:
        """One update of work that is sampled, while what was begun is being sampled."""
        ...

    def broadcast_beside(self, begun: Sequence[Sampling], sums: MetricSums) -> None:
        """The new weights to engines that sample (`pipeline.new_weights`), verified."""
        ...

    def broadcast(self, sums: MetricSums) -> None:
        """The new weights to every engine, verified."""
        ...


StepOrder = Callable[[StepWorkers, int, Work, MetricSums], list[Completion]]


def joint_step(workers: StepWorkers, step: int, work: Work, sums: MetricSums) -> list[Completion]:
    """All layers are sampled from one policy, which then takes one step on all of them."""
    if work.problems and workers.streams(step):
        completions = workers.sample_and_update(step, work, sums)
        workers.broadcast(sums)
        return completions
    completions = list(work.ready)
    if work.problems:
        completions += workers.sample(
            step,
            work.problems,
            sums,
            layers=work.layers,
            attempts=[*work.ready, *work.parents],
            slots=work.slots,
        )
    completions = workers.update(
        step, completions, sums, parents=work.parents, replayed=work.replayed
    )
    workers.broadcast(sums)
    return completions


def sequential_step(
    workers: StepWorkers, step: int, work: Work, sums: MetricSums
) -> list[Completion]:
    """One update per layer, first to last.

    Refreshed: each layer is sampled from the policy that the layer before left. Snapshot: all
    are sampled first, and importance weights account for the updates in between.
    """
    check_problems_only(work, "sequential")
    order = workers.method.objective.update_order
    is_snapshot = isinstance(order, Sequential) and order.rollout_policy == "snapshot"
    sampled = workers.sample(step, work.problems, sums) if is_snapshot else []
    done: list[Completion] = []
    attempts: list[Completion] = []
    for number in range(1, len(workers.method.layers) + 1):
        parents = attempts
        if is_snapshot:
            attempts = [one for one in sampled if one.layer == number]
        else:
            layer = range(number, number + 1)
            attempts = workers.sample(step, work.problems, sums, layers=layer, attempts=parents)
        replayed = work.replayed if number == 1 else ()  # so that each trains once a step
        attempts = workers.update(step, attempts, sums, parents=parents, replayed=replayed)
        done += attempts
        if not is_snapshot:
            workers.broadcast(sums)
    if is_snapshot:
        workers.broadcast(sums)
    return done


def alternate_step(
    workers: StepWorkers, step: int, work: Work, sums: MetricSums
) -> list[Completion]:
    """Each step trains one layer, in turn; the layers before it are sampled for its prompts."""
    check_problems_only(work, "alternate_steps")
    number = step % len(workers.method.layers) + 1
    completions = workers.sample(step, work.problems, sums, layers=range(1, number + 1))
    parents = [one for one in completions if one.layer < number]
    trained = [one for one in completions if one.layer == number]
    trained = workers.update(step, trained, sums, parents=parents, replayed=work.replayed)
    workers.broadcast(sums)
    return parents + trained


def check_problems_only(work: Work, order: str) -> None:
    """
    Raises:
        LearnerError: a source gave completions, and the order samples all of its own.
    """
    given = len(work.ready) + len(work.parents)
    if given:
        raise LearnerError(
            f"A source gave {given} completions that were sampled before, and objective."
            f"update_order: {order} samples every layer by itself. Use update_order: joint."
        )


STEP_ORDERS: dict[str, StepOrder] = {
    "joint": joint_step,
    "sequential": sequential_step,
    "alternate_steps": alternate_step,
}
