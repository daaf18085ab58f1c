"""Draws easy problems first."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from mgrpo.config.sources import Curriculum
from mgrpo.data.formats.rows import MISSING, value_at
from mgrpo.data.sampler import refuse_other_order
from mgrpo.errors import DataError
from mgrpo.records.json_object import JsonObject
from mgrpo.types import Completion, Problem


def difficulties(problems: Sequence[Problem], config: Curriculum) -> list[float]:
    """Of each problem, lowest first to be drawn.

    Raises:
        DataError: a problem has no such number.
    """
    sign = 1.0 if config.order == "ascending" else -1.0
    return [sign * number_of(problem, config.by) for problem in problems]


def number_of(problem: Problem, column: str) -> float:
    value = value_at(problem.metadata, column)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        found = "no" if value is MISSING else f"{value!r} as its"
        raise DataError(
            f"data.sampler: curriculum sorts by the column {column!r}, and {problem.problem_id} "
            f"has {found} number. Keep the column with metadata_fields, and give every row a "
            f"number. Columns kept: {', '.join(problem.metadata) or 'none'}."
        )
    return number


class CurriculumSampler:
    """Random indices into a share of the problems that grows from the easiest to all.

    Each call's indices differ, as far as there are as many problems. They depend only on the
    seed, the draws before and their number.
    """

    def __init__(
        self,
        difficulty: Sequence[float],
        seed: int,
        *,
        start_fraction: float,
        num_draws_until_full: int,
    ) -> None:
        """
        Args:
            difficulty: of every problem; the lowest are drawn first.
            start_fraction: share of the problems that the first draw is from.
            num_draws_until_full: after so many, all problems are drawn from.
        """
        self.order = sorted(range(len(difficulty)), key=difficulty.__getitem__)
        self.seed, self.num_draws = seed, 0
        self.start_fraction, self.num_draws_until_full = start_fraction, num_draws_until_full

    def take(self, n: int) -> list[int]:
        """The next `n` indices."""
        done = min(1.0, self.num_draws / self.num_draws_until_full)
        fraction = self.start_fraction + (1 - self.start_fraction) * done
        num_open = min(len(self.order), max(n, math.ceil(fraction * len(self.order))))
        rng = random.Random(f"{self.seed}/curriculum/{self.num_draws}")
        self.num_draws += n
        drawn = rng.sample(range(num_open), min(n, num_open))
        drawn += rng.choices(range(num_open), k=n - len(drawn))
        return [self.order[place] for place in drawn]

    def observe(self, completions: Sequence[Completion]) -> dict[str, float]:
        """Results do not change this order."""
        return {}

    def state_dict(self) -> JsonObject:
        """Plain values for JSON."""
        return {
            "num_problems": len(self.order),
            "seed": self.seed,
            "num_draws": self.num_draws,
        }

    def load_state_dict(self, state: JsonObject) -> None:
        """Continue from a `state_dict`.

        Raises:
            DataError: the state is of other data or another seed.
        """
        refuse_other_order(state, num_problems=len(self.order), seed=self.seed)
        self.num_draws = int(state["num_draws"])
