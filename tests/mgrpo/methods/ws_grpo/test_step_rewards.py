"""The trajectory reward and the preference loss of WS-GRPO, with numbers worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from learner.advantages import group_advantages
from mgrpo.methods.ws_grpo.step_rewards import (
    bradley_terry_losses,
    pair_accuracy,
    step_scores_from_values,
    trajectory_reward,
)

A = ([0.8, 0.7, 0.6], True)
B = ([0.6, 0.4, 0.3, 0.3], False)
C = ([0.9, 0.5], True)
D = ([0.7, 0.5, 0.5, 0.3, 0.2, 0.2, 0.1], True)


def reward(scores, is_correct, **changes):
    return trajectory_reward(torch.tensor(scores), is_correct, **changes)


@pytest.mark.parametrize(
    ("rollout", "expected"),
    [
        (A, 5.7),  # 2.1 / 3 + 5
        (B, 0.4),  # 1.6 / 4
        (C, 4.7),  # 1.4 / 2 + 5 - 1: two steps are too few
        (D, 4.357143),  # 2.5 / 7 + 5 - 1: seven are too many
    ],
)
def test_rewards_of_the_worked_example(rollout, expected):
    assert reward(*rollout) == pytest.approx(expected, abs=1e-6)


def test_advantages_of_the_worked_example():
    rewards = torch.tensor([reward(*rollout) for rollout in (A, B, C, D)], dtype=torch.float64)
    assert float(rewards.mean()) == pytest.approx(3.789286, abs=1e-6)
    assert float(rewards.std(correction=0)) == pytest.approx(2.018040, abs=1e-6)
    expected = torch.tensor([0.946817, -1.679493, 0.451286, 0.281390], dtype=torch.float64)
    assert_close(group_advantages(rewards, ddof=0, epsilon=0.0), expected, atol=1e-6, rtol=0)


def test_a_sum_pays_for_every_step():
    assert reward(*A, aggregate="sum") == pytest.approx(7.1)  # 2.1 + 5


def test_every_weight_has_its_part():
    found = reward(*C, lambda_step=2.0, lambda_outcome=3.0, range_penalty=0.5)
    assert found == pytest.approx(2 * 0.7 + 3 - 0.5)


def test_both_ends_of_the_range_are_inside():
    assert reward([0.5] * 2, False, step_range=(2, 2)) == pytest.approx(0.5)
    assert reward([0.5] * 3, False, step_range=(2, 2)) == pytest.approx(-0.5)


@pytest.mark.parametrize("scores", [torch.empty(0), torch.ones(2, 2)])
def test_scores_that_are_not_a_row_of_steps_are_refused(scores):
    with pytest.raises(ValueError, match="must be"):
        trajectory_reward(scores, True)


def test_an_empty_range_is_refused():
    with pytest.raises(ValueError, match="holds no number"):
        reward(*A, step_range=(4, 3))


def test_the_bradley_terry_loss_of_known_margins():
    preferred, other = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, 2.0])
    expected = torch.tensor([0.313262, 1.313262, 0.693147])
    assert_close(bradley_terry_losses(preferred, other), expected, atol=1e-6, rtol=0)


def test_the_bradley_terry_loss_is_finite_for_any_margin():
    losses = bradley_terry_losses(torch.tensor([-1e4, 1e4]), torch.zeros(2))
    assert losses.tolist() == [1e4, 0.0]


def test_values_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="preferred"):
        bradley_terry_losses(torch.zeros(2), torch.zeros(1))


def test_a_tie_counts_half():
    preferred, other = torch.tensor([1.0, 0.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 2.0, 0.0])
    assert pair_accuracy(preferred, other) == 2.5 / 4


def test_step_scores_are_the_sigmoid_of_each_change():
    values = torch.tensor([0.0, 1.0, 1.0, -1.0])  # changes 1, 0, -2
    expected = torch.tensor([0.731059, 0.5, 0.119203])
    assert_close(step_scores_from_values(values), expected, atol=1e-6, rtol=0)
    flipped = step_scores_from_values(values, is_later_preferred=False)
    assert_close(flipped, 1 - expected, atol=1e-6, rtol=0)
