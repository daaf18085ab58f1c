"""The grouper: features, what it minimises, and that it finds what fails."""

import pytest
import torch

from learner.robust_weights import soft_group_losses
from mgrpo.methods.agro.grouper import (
    Grouper,
    adversary_loss,
    divergence_from_uniform,
    hashed_counts,
    mean_entropy,
)

MEMBERSHIPS = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], dtype=torch.float64)
LOSSES = torch.tensor([0.1, 1.0, 0.4], dtype=torch.float64)


def test_the_worked_memberships():
    assert float(mean_entropy(MEMBERSHIPS)) == pytest.approx(0.506211, abs=1e-6)
    assert float(divergence_from_uniform(MEMBERSHIPS)) == pytest.approx(0.002224, abs=1e-6)


def test_the_adversarys_loss_is_put_together_from_the_worked_parts():
    weights = torch.tensor([0.397671, 0.602329], dtype=torch.float64)
    found = adversary_loss(MEMBERSHIPS, LOSSES, weights, entropy_weight=2.0, balance_weight=3.0)
    expected = -0.556324 - 2 * 0.506211 + 3 * 0.002224
    assert float(found) == pytest.approx(expected, abs=5e-6)


def test_memberships_of_0_and_1_have_no_entropy():
    assert float(mean_entropy(torch.eye(2))) == 0


def test_features_are_means_over_tokens():
    one, other = hashed_counts([5], 16), hashed_counts([9], 16)
    assert one.abs().sum() == 1
    torch.testing.assert_close(hashed_counts([5, 5, 9, 9], 16), (one + other) / 2)
    assert not torch.equal(one, other)


def test_a_prompt_without_tokens_has_no_features():
    assert not hashed_counts([], 8).any()


def test_the_same_seed_gives_the_same_groups():
    features = torch.stack([hashed_counts([n, n + 1], 8) for n in range(4)])
    made = [Grouper(8, 3, learning_rate=1e-3, seed=s).memberships(features) for s in (1, 1, 2)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    torch.testing.assert_close(made[0].sum(1), torch.ones(4, dtype=torch.float64))


def test_the_adversary_gathers_what_fails_in_the_group_that_weighs_most():
    features = torch.stack([hashed_counts([n], 8) for n in (1, 1, 2, 2)])
    losses = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    grouper = Grouper(8, 2, learning_rate=1e-2, seed=0)
    weights = torch.tensor([0.9, 0.1], dtype=torch.float64)
    before = soft_group_losses(grouper.memberships(features), losses).tolist()
    assert before == pytest.approx([0.5, 0.5], abs=0.2)
    for _ in range(200):
        grouper.step(features, losses, weights, entropy_weight=0.05, balance_weight=0.1)
    after = soft_group_losses(grouper.memberships(features), losses).tolist()
    assert after[0] > 0.95


def test_a_restored_grouper_takes_the_same_steps():
    features = torch.stack([hashed_counts([n], 8) for n in (1, 2)])
    losses = torch.tensor([1.0, 0.0], dtype=torch.float64)
    weights = torch.tensor([0.5, 0.5], dtype=torch.float64)

    def steps(grouper, count):
        return [
            grouper.step(features, losses, weights, entropy_weight=0.1, balance_weight=1.0)
            for _ in range(count)
        ]

    first = Grouper(8, 2, learning_rate=1e-2, seed=0)
    steps(first, 3)
    second = Grouper(8, 2, learning_rate=1e-2, seed=5)
    second.load_state_dict(first.state_dict())
    assert steps(first, 3) == steps(second, 3)
