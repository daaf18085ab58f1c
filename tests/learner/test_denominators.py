"""What the token losses of a layer are divided by, by its aggregation."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import pytest
from pydantic import ValidationError

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig, SolveLayer
from mgrpo.types import Completion
from tests.learner.builders import attempts, completion, corrections, layer, solve_layer


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


@pytest.mark.parametrize("k", [1, 2, 3])
def test_k_parents_drawn_uniformly_have_all_parents_weights_in_expectation(k: int) -> None:
    """The mean over all choices of k of two problems' four parents, each corrected three times."""
    chain = [solve_layer(), layer(select="none")]
    families: dict[str, list[Completion]] = defaultdict(list)
    for problem in ("q", "p"):
        for one in corrections():
            name = one.completion_id.replace("q", problem, 1)
            families[name[:3]].append(completion(name, one.reward.value if one.reward else 0))

    def gradients(chosen: Iterable[str]) -> Counter[str]:
        """By completion, the factor on its token's log-probability."""
        own = [one for name in chosen for one in families[name]]
        rows = build_batch(own, chain, ObjectiveConfig()).all_rows
        return Counter(
            {row.completion_id: float(row.advantages[0] * row.token_weights[0]) for row in rows}
        )

    choices = list(
        itertools.product(
            *(
                itertools.combinations([f"{problem}/{parent}" for parent in (1, 2, 3, 4)], k)
                for problem in ("q", "p")
            )
        )
    )
    total: dict[str, float] = defaultdict(float)
    for chosen in choices:
        for name, value in gradients(itertools.chain(*chosen)).items():
            total[name] += value / len(choices)
    assert total == pytest.approx(dict(gradients(families)))


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("seq_mean", [3.0 / 5, 0.5 / 5]),  # five completions, of one token and of two
        ("token_mean", [3.0 / 6, 1.0 / 6]),  # 4 x 1 token and 1 x 2
        ({"type": "fixed_length", "num_tokens": 10}, [3.0 / 50, 1.0 / 50]),
    ],
)
def test_a_completion_weighs_and_counts_as_its_record_says(
    aggregation: Any, expected: list[float]
) -> None:
    made = [
        completion("q/1", 1.0, weight=3.0, counts_as=4.0),
        completion("q/2", 0.0, token_ids=[3, 4], rollout_logprobs=[-1.0, -1.0]),
    ]
    rows = build_batch(made, [solve(aggregation)], ObjectiveConfig()).rows
    assert [float(row.token_weights[0]) for row in rows] == pytest.approx(expected)
