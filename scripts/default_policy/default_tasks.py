"""The problems that the default policy knows: which data sets, with which settings.

The held-out questions of the shipped recipes are drawn with `HELDOUT_SEED`; the warm start
leaves them out, so the policy has never seen them when a run begins.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One reasoning-gym data set, its settings, and its share of the warm start's problems."""

    name: str
    weight: float
    settings: dict[str, Any]


TASKS = (
    Task(
        name="chain_sum",
        weight=0.6,
        settings={"min_terms": 2, "max_terms": 3, "min_digits": 2, "max_digits": 2},
    ),
    Task(
        name="leg_counting",
        weight=0.4,
        settings={"min_animals": 2, "max_animals": 3, "min_instances": 1, "max_instances": 4},
    ),
)

HELDOUT_SEED = 7_000_000
"""Seed of the recipes' held-out draw."""
NUM_RESERVED = 2048
"""Rows from HELDOUT_SEED on, of each data set, that the warm start never uses."""
WARM_START_SEED = 1_000_000_000
"""reasoning-gym seeds row i with seed + i: far away from any recipe's seeds."""


def draw(task: Task, *, seed: int, size: int) -> Any:
    """The data set; its rows are generated when they are asked for."""
    import reasoning_gym  # takes seconds

    return reasoning_gym.create_dataset(task.name, seed=seed, size=size, **task.settings)


def reserved_questions() -> frozenset[str]:
    """Questions that are kept for evaluation."""
    return frozenset(
        row["question"]
        for task in TASKS
        for row in draw(task, seed=HELDOUT_SEED, size=NUM_RESERVED)
    )


def question_source() -> Callable[[random.Random], tuple[str, str]]:
    """A function that draws (data set's name, question), held-out questions left out."""
    reserved = reserved_questions()
    datasets = {task.name: draw(task, seed=WARM_START_SEED, size=2**30) for task in TASKS}
    names = [task.name for task in TASKS]
    weights = [task.weight for task in TASKS]

    def draw_question(rng: random.Random) -> tuple[str, str]:
        while True:
            name = rng.choices(names, weights)[0]
            question = datasets[name][rng.randrange(2**30)]["question"]
            if question not in reserved:
                return name, question

    return draw_question
