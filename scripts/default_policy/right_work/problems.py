"""The problems of the candidate: two families that reasoning-gym makes and verifies.

- `chain_sum`: sums and differences of four or five two-digit numbers. A second look costs what the
  first did.
- `simple_equations`: a linear equation. It is solved by a division, for which the network has no
  other means than to remember products, and checked by substitution.
"""

from __future__ import annotations

from collections.abc import Sequence

from mgrpo.config.data import ReasoningGymSource, ReasoningGymTask
from mgrpo.data.problems import load_problems
from mgrpo.types import Problem
from scripts.default_policy.default_tasks import HELDOUT_SEED, WARM_START_SEED

TASKS = (
    ReasoningGymTask(
        name="chain_sum",
        settings={"min_terms": 4, "max_terms": 5, "min_digits": 2, "max_digits": 2},
    ),
    ReasoningGymTask(
        name="simple_equations",
        settings={
            "min_terms": 2,
            "max_terms": 2,
            "min_value": 2,
            "max_value": 25,
            "operators_weights": [0.5, 0.5, 0.0],
        },
    ),
)

MAX_TOKENS = {"chain_sum": 96, "simple_equations": 40}
"""Longest completion of a family; of 500 right ones of each, the longest had 84 and 27 tokens."""
NUM_HELD_OUT = 500
"""Problems of each family that the warm start never uses."""
NUM_CHECKED = 128
"""Problems of each family whose attempts say when to stop: an error of 4.4 points at one half."""
STOP_SEED = HELDOUT_SEED + 500_000
"""Seed of the problems that say when to stop: none of those that are reported."""

Pools = dict[str, list[Problem]]
"""Problems by family."""


def source_of(
    seed: int, size: int, exclude: Sequence[ReasoningGymSource] = ()
) -> ReasoningGymSource:
    """`size` problems of each family, without the questions of `exclude`."""
    return ReasoningGymSource(
        tasks=list(TASKS),
        size=size * len(TASKS),
        seed=seed,
        exclude_questions_of=list(exclude),
    )


def held_out() -> ReasoningGymSource:
    return source_of(HELDOUT_SEED, NUM_HELD_OUT)


def for_stopping(size: int) -> ReasoningGymSource:
    return source_of(STOP_SEED, size, [held_out()])


def for_training(size: int, num_for_stopping: int) -> ReasoningGymSource:
    return source_of(WARM_START_SEED, size, [held_out(), for_stopping(num_for_stopping)])


def pools_of(source: ReasoningGymSource) -> Pools:
    pools: Pools = {task.name: [] for task in TASKS}
    for problem in load_problems(source).problems:
        pools[problem.domain].append(problem)
    return pools
