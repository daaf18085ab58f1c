"""The numbers that the step-time page draws from the measured steps."""

from __future__ import annotations

import pytest

from benchmarks.step_time_page import Round, Steps, phase_means, spread


def steps(*seconds: float, tokens: float = 1.0, **phases: list[float]) -> Steps:
    return Steps(list(seconds), [tokens] * len(seconds), phases, load_before=0.0)


def test_a_ratio_below_one_means_that_ours_is_faster():
    assert Round(ours=steps(2.0, 3.0, 9.0), trl=steps(4.0, 6.0, 7.0)).ratio == 0.5


def test_a_ratio_is_of_seconds_a_token_where_lengths_vary():
    assert Round(ours=steps(6.0, tokens=4.0), trl=steps(4.0, tokens=2.0)).ratio == 0.75


def test_two_trainers_steps_count_together():
    both = steps(1.0, 2.0, sampling=[0.5, 0.5]) + steps(3.0, 5.0, tokens=4.0, sampling=[1.0, 2.0])
    assert both == steps(4.0, 7.0, tokens=5.0, sampling=[1.5, 2.5])


def test_the_parts_of_a_step_add_up_to_its_mean_over_all_rounds():
    means = phase_means(
        [
            steps(4.0, 6.0, rollout=[1.0, 2.0], update=[2.0, 2.0]),
            steps(8.0, rollout=[3.0], update=[2.0]),
        ]
    )

    assert means == pytest.approx({"rollout": 2.0, "update": 2.0, "other": 2.0})


def test_a_spread_shows_the_median_and_both_ends():
    assert spread([3.0, 1.0, 2.0, 10.0]) == "2.50 (1.00 to 10.00)"
