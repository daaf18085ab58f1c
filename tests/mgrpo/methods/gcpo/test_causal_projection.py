"""GCPO's worked numbers."""

import math

import pytest
import torch

from learner.losses import kl_penalty
from mgrpo.methods.gcpo.causal_projection import causal_weights, group_mean, projected_reference
from tests.learner.exact import floats


def logs(*probabilities):
    return floats(*probabilities).log()


def test_the_worked_weight():
    """z (1, 0) against (1, 1) - (.5, 1) + (.5, .5) = (1, .5): cosine .894427, doubled."""
    found = causal_weights(
        floats(1, 0)[None], floats(1, 1)[None], floats(0.5, 1)[None], floats(0.5, 0.5), alpha=2.0
    )
    assert found.tolist() == pytest.approx([1.788854], abs=1e-6)


def test_a_weight_may_be_negative_and_a_state_of_nothing_has_none():
    zero, right, left = floats(0, 0)[None], floats(1, 0)[None], floats(-1, 0)[None]
    assert causal_weights(right, left, zero, floats(0, 0), alpha=2.0).tolist() == [-2.0]
    assert causal_weights(zero, right, zero, floats(0, 0), alpha=2.0).tolist() == [0.0]


@pytest.mark.parametrize(
    ("combine", "alternatives", "reference", "k3"),
    [
        ("mean", [0.3], 0.45, 0.007217),
        ("mean", [0.2, 0.4], 0.45, 0.007217),
        ("sum", [0.3, 0.3], 0.15, 0.355829),
    ],
)
def test_the_worked_token(combine, alternatives, reference, k3):
    """π(x) .4, the mean alternative .3, π(q) .35; the printed sum of two is .6."""
    by_answer = torch.stack([logs(value) for value in alternatives])
    found = projected_reference(logs(0.4), by_answer, logs(0.35), combine=combine)
    assert found.exp().tolist() == pytest.approx([reference])
    penalty = kl_penalty(logs(0.4), found)
    assert penalty.tolist() == pytest.approx([k3], abs=1e-6)
    if combine == "mean":
        assert 0.06 * float(penalty) == pytest.approx(0.000433, abs=1e-6)


def test_a_reference_below_nothing_is_the_floor():
    found = projected_reference(logs(0.1), logs(0.9)[None], logs(0.2), floor=1e-6)
    assert found.tolist() == pytest.approx([math.log(1e-6)])


def test_without_an_effect_of_the_integrated_answer_the_reference_is_the_policy_itself():
    found = projected_reference(logs(0.3, 0.7), logs(0.3, 0.7)[None], logs(0.4, 0.6))
    assert found.exp().tolist() == pytest.approx([0.4, 0.6])


def test_means_are_of_groups():
    states = torch.stack([floats(1, 0), floats(0, 4), floats(3, 2)])
    found = group_mean(states, torch.tensor([0, 1, 0]))
    assert found.tolist() == [[2, 1], [0, 4], [2, 1]]
