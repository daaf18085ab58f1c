"""What the token losses of a layer are divided by, by its aggregation."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig, SolveLayer
from tests.learner.builders import attempts


def solve(aggregation: Any) -> SolveLayer:
    return SolveLayer(name="solve", group_size=2, max_completion_tokens=20, aggregation=aggregation)


@pytest.mark.parametrize(
    ("aggregation", "length"),
    [
        ("fixed_length", 20),
        ({"type": "fixed_length", "num_tokens": 10}, 10),
        ({"type": "fixed_length", "num_tokens": None}, 20),
    ],
)
def test_a_fixed_length_is_the_longest_completions_or_the_recipes_own(aggregation, length: int):
    rows = build_batch(attempts([1.0, 0.0]), [solve(aggregation)], ObjectiveConfig()).rows
    weights = [weight for row in rows for weight in row.token_weights.tolist()]
    assert weights == pytest.approx([1 / (2 * length)] * len(weights))


def test_the_other_aggregations_have_no_length() -> None:
    with pytest.raises(ValidationError, match=r"token_mean\.num_tokens"):
        solve({"type": "token_mean", "num_tokens": 10})
