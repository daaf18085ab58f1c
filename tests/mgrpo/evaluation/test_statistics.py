"""Hand-worked numbers for the statistics of an evaluation."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mgrpo.evaluation.statistics import (
    accuracy_intervals,
    exact_mcnemar,
    maj_at_k,
    majority,
    paired_bootstrap,
    pass_at_k,
    resampled,
)


@pytest.mark.parametrize(
    ("num_samples", "num_correct", "k", "expected"),
    [
        (4, 2, 2, 5 / 6),  # 1 - C(2,2)/C(4,2)
        (4, 2, 1, 0.5),
        (4, 2, 3, 1.0),  # only two are wrong
        (10, 3, 5, 1 - 21 / 252),  # 1 - C(7,5)/C(10,5)
        (8, 0, 8, 0.0),
        (1, 1, 1, 1.0),
    ],
)
def test_pass_at_k_by_hand(num_samples: int, num_correct: int, k: int, expected: float):
    assert pass_at_k(num_samples, num_correct, k) == pytest.approx(expected, abs=1e-15)


def test_pass_at_k_is_the_share_of_draws_with_a_right_sample():
    samples = [True, False, False, True, False, False]
    draws = [any(draw) for draw in combinations(samples, 3)]
    assert pass_at_k(6, 2, 3) == sum(draws) / len(draws)


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_refuses_more_draws_than_samples(k: int):
    with pytest.raises(ValueError, match=f"pass@{k} of 4 samples"):
        pass_at_k(4, 2, k)


def test_the_majority_breaks_ties_by_what_came_first_and_ignores_those_who_do_not_vote():
    assert majority(["7", "8", "8", "7"]) == "7"
    assert majority(["7", "8", "8"]) == "8"
    assert majority([None, None, "9"]) == "9"
    assert majority([None, None]) is None


def test_maj_at_k_votes_in_blocks_of_k():
    votes = ["7", "8", "8", "7", "7", None, "9"]
    correct = [True, False, False, True, True, False, False]
    assert maj_at_k(votes, correct, 1) == 3 / 7
    # Blocks of 3: (7, 8, 8) is wrong, (7, 7, -) is right; the seventh sample fills no block.
    assert maj_at_k(votes, correct, 3) == 0.5
    # Blocks of 2: 7 and 8 tie and 7 came first; 8 and 7 tie and 8 came first; then 7 alone.
    assert maj_at_k(votes, correct, 2) == 2 / 3
    assert maj_at_k(votes, correct, 7) == 1.0  # three votes for 7


def test_a_block_without_a_vote_is_wrong():
    assert maj_at_k([None, None, "7", None], [False, False, True, False], 2) == 0.5


def test_maj_at_k_refuses_more_votes_than_samples():
    with pytest.raises(ValueError, match="maj@3 of 2 samples"):
        maj_at_k(["7", "8"], [True, False], 3)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [
        (1, 8, 0.0390625),  # 2 (1 + 9) / 2^9
        (8, 1, 0.0390625),
        (0, 5, 0.0625),  # 2 / 2^5
        (3, 3, 1.0),  # the doubled tail is above 1
        (0, 0, 1.0),
    ],
)
def test_exact_mcnemar_by_hand(only_a: int, only_b: int, p_value: float):
    assert exact_mcnemar(only_a, only_b) == pytest.approx(p_value, rel=1e-12)


def test_mcnemar_of_many_problems_does_not_overflow():
    assert 0.0 < exact_mcnemar(900, 1200) < 1e-9


def test_each_resample_draws_as_many_problems_as_there_are(monkeypatch):
    monkeypatch.setattr("mgrpo.evaluation.statistics.MAX_DRAWS_AT_ONCE", 64)  # several blocks
    table = np.column_stack([np.ones(10), np.arange(10.0)])
    (ones, sums), intervals = resampled(table, np.sum, num_resamples=500, seed=1)
    assert set(ones) == {10.0} and intervals[0] == (10.0, 10.0)
    assert sums.shape == (500,)
    assert sums.mean() == pytest.approx(45.0, abs=2.0)  # standard error 9.1 / sqrt(500)
    assert sums.std() == pytest.approx(9.08, rel=0.15)  # sqrt(10 * 8.25)
    (_, again), _ = resampled(table, np.sum, num_resamples=500, seed=1)
    (_, other), _ = resampled(table, np.sum, num_resamples=500, seed=2)
    np.testing.assert_array_equal(sums, again)
    assert not np.array_equal(sums, other)


def test_intervals_are_those_of_the_normal_approximation():
    # 100 problems, 50 right at turn 1; ten more at turn 2, and none lost.
    first = np.array([1.0] * 50 + [0.0] * 50)
    second = np.array([1.0] * 60 + [0.0] * 40)
    (turn1, _), delta = accuracy_intervals(
        np.column_stack([first, second]), np.ones(100), num_resamples=4000, seed=0
    )
    assert turn1 == pytest.approx((0.5 - 0.098, 0.5 + 0.098), abs=0.015)  # 1.96 sqrt(.25 / 100)
    assert delta == pytest.approx((0.1 - 0.059, 0.1 + 0.059), abs=0.015)  # 1.96 sqrt(.09 / 100)


def test_problems_with_more_answers_weigh_more():
    # Every resample is of the same kind of problem, so nothing varies: 3 of 4 right.
    (turn1,), delta = accuracy_intervals(
        np.full((5, 1), 3.0), np.full(5, 4.0), num_resamples=100, seed=0
    )
    assert turn1 == (0.75, 0.75) and delta == (0.0, 0.0)


def test_the_paired_bootstrap_of_equal_policies_finds_nothing():
    [((low, high), p_value)] = paired_bootstrap(np.zeros((20, 1)), num_resamples=200, seed=0)
    assert (low, high, p_value) == (0.0, 0.0, 1.0)


def test_the_paired_bootstrap_agrees_with_the_normal_test():
    # 100 problems, differences of +1 for 20 and -1 for 8: mean 0.12, standard error 0.0515.
    differences = np.array([[1.0]] * 20 + [[-1.0]] * 8 + [[0.0]] * 72)
    [((low, high), p_value)] = paired_bootstrap(differences, num_resamples=20000, seed=0)
    assert (low, high) == pytest.approx((0.12 - 0.101, 0.12 + 0.101), abs=0.012)
    assert p_value == pytest.approx(0.0198, abs=0.006)  # z = 2.33


def test_a_certain_difference_has_the_smallest_p_value_that_the_resamples_allow():
    rng = np.random.default_rng(0)
    differences = 0.8 + 0.1 * rng.standard_normal((50, 1))
    [(_, p_value)] = paired_bootstrap(differences, num_resamples=999, seed=0)
    assert p_value == 1 / 1000
