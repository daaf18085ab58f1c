"""Weights of domains and of soft groups, by hand."""

import pytest
import torch

from learner.robust_weights import (
    exponentiated_weights,
    row_weights,
    soft_group_losses,
    soft_prompt_weights,
    worst_share_weights,
)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


BOTH = torch.tensor([True, True])
MEMBERSHIPS = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], dtype=torch.float64)
LOSSES = tensor(0.1, 1.0, 0.4)


def test_the_worked_exponential_step():
    found = exponentiated_weights(tensor(0.5, 0.5), tensor(0.2, 0.8), BOTH, rate=1.0)
    assert found.tolist() == pytest.approx([0.354344, 0.645656], abs=1e-6)
    assert float((found * tensor(0.2, 0.8)).sum()) == pytest.approx(0.587394, abs=1e-6)


def test_absent_groups_keep_their_weight():
    present = torch.tensor([True, True, False])
    found = exponentiated_weights(tensor(0.25, 0.25, 0.5), tensor(0.2, 0.8, 9.0), present, rate=1.0)
    assert found.tolist() == pytest.approx([0.177172, 0.322828, 0.5], abs=1e-6)


def test_nothing_present_changes_nothing():
    found = exponentiated_weights(tensor(0.3, 0.7), tensor(1.0, 1.0), ~BOTH, rate=1.0)
    assert found.tolist() == [0.3, 0.7]


def test_the_worked_row_weights_are_one_on_average():
    weights = tensor(0.354344, 0.645656)
    groups = torch.tensor([0] * 6 + [1] * 2)
    found = row_weights(weights, groups)
    assert found.tolist() == pytest.approx([0.472459] * 6 + [2.582624] * 2, abs=1e-6)
    assert float(found.mean()) == pytest.approx(1, abs=1e-15)
    losses = tensor(0.2, 0.8)[groups]
    assert float((found * losses).mean()) == pytest.approx(0.587394, abs=1e-6)


def test_absent_groups_take_no_weight_from_rows():
    found = row_weights(tensor(0.2, 0.2, 0.6), torch.tensor([0, 1, 1]))
    assert found.tolist() == pytest.approx([1.5, 0.75, 0.75])


def test_the_frequency_of_the_batch_weighs_nothing():
    found = row_weights(tensor(0.75, 0.25), torch.tensor([0, 0, 0, 1]))
    assert found.tolist() == pytest.approx([1, 1, 1, 1])


def test_the_worked_worst_share():
    found = worst_share_weights(tensor(0.5, 0.3, 0.2), tensor(0.2, 0.5, 0.9), share=0.4, floor=0.1)
    assert found.tolist() == pytest.approx([0.05, 0.48, 0.47])


def test_a_share_that_ends_between_two_groups_leaves_the_next_nothing():
    found = worst_share_weights(
        tensor(0.5, 0.3, 0.1, 0.1), tensor(0.1, 0.2, 0.8, 0.9), share=0.2, floor=0.0
    )
    assert found.tolist() == pytest.approx([0, 0, 0.5, 0.5])


def test_the_whole_share_is_the_frequency():
    found = worst_share_weights(tensor(0.5, 0.3, 0.2), tensor(0.2, 0.5, 0.9), share=1, floor=0)
    assert found.tolist() == pytest.approx([0.5, 0.3, 0.2])


def test_the_worked_soft_groups():
    losses = soft_group_losses(MEMBERSHIPS, LOSSES)
    assert losses.tolist() == pytest.approx([0.306250, 0.721429], abs=1e-6)
    weights = exponentiated_weights(tensor(0.5, 0.5), losses, BOTH, rate=1.0)
    assert weights.tolist() == pytest.approx([0.397671, 0.602329], abs=1e-6)
    found = soft_prompt_weights(weights, MEMBERSHIPS)
    assert found.tolist() == pytest.approx([0.800140, 1.181691, 1.018169], abs=1e-6)
    assert float(found.mean()) == pytest.approx(1)
    assert float((weights * losses).sum()) == pytest.approx(0.556324, abs=1e-6)
    assert float((found * LOSSES).mean()) == pytest.approx(0.556324, abs=1e-6)


def test_evenly_spread_prompts_weigh_the_same():
    found = soft_prompt_weights(tensor(0.9, 0.1), torch.full((3, 2), 0.5).double())
    assert found.tolist() == pytest.approx([1, 1, 1])
