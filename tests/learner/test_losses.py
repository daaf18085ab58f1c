import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from learner.losses import (
    clipped_objective,
    importance_weights,
    is_clipped,
    kl_penalty,
    token_losses,
    zero_where_masked,
)

F64 = torch.float64
MASK = tensor([[True, True], [True, False]])


def objective_at(ratios, advantages, **settings):
    logprobs = torch.log(tensor(ratios, dtype=F64))
    return clipped_objective(
        logprobs, torch.zeros_like(logprobs), tensor(advantages, dtype=F64), **settings
    )


def two_rows():
    """Ratios [[1.3, 0.9], [0.7, padding]] with advantages 1 and -1."""
    logprobs = torch.log(tensor([[1.3, 0.9], [0.7, 1.0]], dtype=F64)).requires_grad_()
    return logprobs, tensor([[1.0], [-1.0]], dtype=F64)


def test_the_clipped_losses_of_two_rows():
    logprobs, advantages = two_rows()
    losses = token_losses(clipped_objective(logprobs, torch.zeros_like(logprobs), advantages))
    assert_close(losses.detach()[MASK], tensor([-1.2, -0.9, 0.8], dtype=F64))


def test_only_the_token_inside_the_clip_range_moves():
    logprobs, advantages = two_rows()
    losses = token_losses(clipped_objective(logprobs, torch.zeros_like(logprobs), advantages))
    (zero_where_masked(losses, MASK).sum() / 3).backward()
    # -d(ρA)/d(log ρ) / 3 tokens = -0.9 / 3 for the ratio of 0.9.
    assert_close(logprobs.grad, tensor([[0.0, -0.3], [0.0, 0.0]], dtype=F64))


@pytest.mark.parametrize(("advantage", "expected"), [(0.866025, 1.039230), (-0.866025, -1.299038)])
def test_a_ratio_of_one_and_a_half_is_clipped_only_for_positive_advantages(advantage, expected):
    assert float(objective_at([1.5], [advantage])) == pytest.approx(expected, abs=1e-6)


def test_the_loss_of_one_parents_corrections():
    terms = objective_at([1.1, 0.9, 1.0], [1.414214, -0.707107, -0.707107])
    assert terms.tolist() == pytest.approx([1.555635, -0.636396, -0.707107], abs=1e-6)
    assert float(-terms.mean()) == pytest.approx(-0.070711, abs=1e-6)


def test_clip_high_alone_widens_the_room_upward():
    ratios, advantages = [1.25, 1.3, 0.75], [1.0, 1.0, -1.0]
    found = objective_at(ratios, advantages, clip_low=0.2, clip_high=0.28)
    assert found.tolist() == pytest.approx([1.25, 1.28, -0.8])


def test_dual_clip_bounds_negative_advantages_only():
    ratios, advantages = [5.0, 5.0, 2.0], [-1.0, 1.0, -1.0]
    assert objective_at(ratios, advantages, dual_clip=3.0).tolist() == pytest.approx([-3, 1.2, -2])
    assert objective_at(ratios, advantages).tolist() == pytest.approx([-5, 1.2, -2])


@pytest.mark.parametrize("dual_clip", [None, 3.0])
def test_a_token_counts_as_clipped_exactly_when_it_gets_no_gradient(dual_clip):
    ratios = tensor([0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 2.9, 3.1, 0.5, 1.0, 1.21, 3.1], dtype=F64)
    advantages = tensor([1.0] * 8 + [-1.0] * 4, dtype=F64)
    logprobs = ratios.log().requires_grad_()
    settings = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": dual_clip}
    old = torch.zeros_like(logprobs)
    clipped_objective(logprobs, old, advantages, **settings).sum().backward()
    found = is_clipped(logprobs.detach(), old, advantages, **settings)
    assert found.tolist() == (logprobs.grad == 0).tolist()


def test_the_gradient_on_policy_is_minus_the_advantage():
    """Also checks that a tie of both branches of the minimum counts once, not twice or never."""
    logprobs = tensor([-1.0, -2.0, -0.1], dtype=F64, requires_grad=True)
    advantages = tensor([1.5, -0.5, 0.0], dtype=F64)
    token_losses(clipped_objective(logprobs, logprobs.detach(), advantages)).sum().backward()
    assert_close(logprobs.grad, -advantages)


@pytest.mark.parametrize(("estimator", "expected"), [("k1", 0.2), ("k2", 0.02), ("k3", 0.018731)])
def test_kl_estimators_at_a_difference_of_a_fifth(estimator, expected):
    found = kl_penalty(tensor([0.2], dtype=F64), tensor([0.0], dtype=F64), estimator=estimator)
    assert float(found) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("d", "expected"), [(0.1, 0.00517092), (-0.1, 0.00483742)])
def test_k3_for_reference_minus_policy(d, expected):
    found = kl_penalty(tensor([0.0], dtype=F64), tensor([d], dtype=F64))
    assert float(found) == pytest.approx(expected, abs=1e-8)


def test_expected_gradients_of_the_kl_estimators_over_a_whole_vocabulary():
    """k1: 0. k2: gradient of KL(policy || reference). k3: gradient of KL(reference || policy)."""
    logits = tensor([0.3, -1.0, 0.8, 0.1], dtype=F64, requires_grad=True)
    reference = torch.log_softmax(tensor([0.0, 0.5, -0.2, 0.4], dtype=F64), dim=0)
    logprobs = torch.log_softmax(logits, dim=0)
    policy = logprobs.exp().detach()

    def gradient(scalar):
        return torch.autograd.grad(scalar, logits, retain_graph=True)[0]

    def expected(estimator):
        values = kl_penalty(logprobs, reference, estimator=estimator)
        return gradient((policy * values).sum())

    forward = gradient((logprobs.exp() * (logprobs - reference)).sum())
    backward = gradient((reference.exp() * (reference - logprobs)).sum())
    assert_close(expected("k1"), torch.zeros_like(logits), atol=1e-12, rtol=0)
    assert_close(expected("k2"), forward)
    assert_close(expected("k3"), backward)


def test_grpo_gradient_coefficient_with_k3():
    """On policy each log-probability's coefficient is A + β(π_ref/π - 1)."""
    logprobs = tensor([-1.0, -2.0], dtype=F64, requires_grad=True)
    ref, advantages, beta = tensor([-1.5, -1.0], dtype=F64), tensor([1.0, -0.5], dtype=F64), 0.04
    objective = clipped_objective(logprobs, logprobs.detach(), advantages)
    token_losses(objective, kl=kl_penalty(logprobs, ref), kl_weight=beta).sum().backward()
    expected = advantages + beta * (torch.exp(ref - logprobs.detach()) - 1)
    assert_close(-logprobs.grad, expected)


def test_importance_weights_are_truncated_and_carry_no_gradient():
    old = tensor([0.9, -0.1], dtype=F64, requires_grad=True)
    found = importance_weights(old, torch.zeros(2, dtype=F64), cap=2.0)
    assert found.tolist() == pytest.approx([2.0, 0.904837], abs=1e-6)
    assert not found.requires_grad
    uncapped = importance_weights(old, torch.zeros(2, dtype=F64), cap=math.inf)
    assert uncapped.tolist() == pytest.approx([2.459603, 0.904837], abs=1e-6)


def test_absurd_log_ratios_stay_finite():
    weights = importance_weights(tensor([900.0]), tensor([-900.0]), cap=math.inf)
    assert float(weights) == pytest.approx(math.exp(20.0))
    assert bool(objective_at([1e300], [-1.0]).isfinite())
    assert bool(kl_penalty(tensor([-900.0]), tensor([0.0])).isfinite())


def test_importance_weights_scale_the_policy_term_but_not_the_kl_penalty():
    logprobs = tensor([-1.0], dtype=F64)
    losses = token_losses(
        clipped_objective(logprobs, logprobs, tensor([2.0], dtype=F64)),
        weights=tensor([0.5], dtype=F64),
        kl=kl_penalty(logprobs, tensor([-1.2], dtype=F64)),
        kl_weight=10.0,
    )
    assert float(losses) == pytest.approx(-0.5 * 2.0 + 10 * 0.018731, abs=1e-5)


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
def test_padding_never_reaches_the_value_or_the_gradient(garbage):
    raw = tensor([[-1.0, -2.0], [-3.0, garbage]], dtype=F64, requires_grad=True)
    logprobs = zero_where_masked(raw, MASK)
    advantages = tensor([[1.0], [-1.0]], dtype=F64)
    losses = token_losses(clipped_objective(logprobs, logprobs.detach() - 0.1, advantages))
    loss = zero_where_masked(losses, MASK).sum()
    loss.backward()
    assert bool(loss.isfinite()) and float(raw.grad[1, 1]) == 0.0
    assert bool(raw.grad.isfinite().all()) and float(raw.grad[0, 0]) != 0.0
