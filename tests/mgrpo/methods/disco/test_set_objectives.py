"""DisCO's set objective and its coefficients, by hand."""

import pytest
import torch

from mgrpo.methods.disco.set_objectives import constraint_factor, set_coefficients, set_objective

SCORES = torch.tensor([-0.5, -0.7, -0.4, -1.0], dtype=torch.float64)
RIGHT = torch.tensor([True, True, False, False])


@pytest.mark.parametrize(
    ("temperature", "value", "shares"),
    [
        (10.0, 0.095501, [0.514996, 0.485004]),
        (1.0, -0.6 + 0.655659, [0.645656, 0.354344]),
        (None, 0.1, [0.5, 0.5]),
    ],
)
def test_the_worked_group(temperature, value, shares):
    found = set_objective(SCORES, RIGHT, temperature=temperature)
    assert float(found) == pytest.approx(value, abs=1e-6)
    coefficients = set_coefficients(SCORES, RIGHT, temperature=temperature)
    assert coefficients.tolist() == pytest.approx([0.5, 0.5, -shares[0], -shares[1]], abs=1e-6)


@pytest.mark.parametrize("temperature", [10.0, 1.0, 0.1, None])
def test_coefficients_are_the_derivative(temperature):
    scores = SCORES.clone().requires_grad_()
    set_objective(scores, RIGHT, temperature=temperature).backward()
    torch.testing.assert_close(
        scores.grad, set_coefficients(SCORES, RIGHT, temperature=temperature), rtol=0, atol=1e-15
    )


def test_a_large_temperature_is_the_plain_mean():
    found = set_objective(SCORES, RIGHT, temperature=1e6)
    assert float(found) == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize("right", [True, False])
def test_a_uniform_group_adds_nothing(right):
    is_right = torch.tensor([right] * 4)
    assert float(set_objective(SCORES, is_right, temperature=1.0)) == 0
    assert not set_coefficients(SCORES, is_right, temperature=1.0).any()


@pytest.mark.parametrize(("form", "factor"), [("squared", 0.4), ("repo", 0.2)])
def test_the_worked_constraint(form, factor):
    """D = 3e-4 above a bound of 1e-4; the squared penalty itself is 1e3 * (2e-4)² = 4e-5."""
    found = constraint_factor(3e-4, bound=1e-4, weight=1e3, form=form)
    assert found == pytest.approx(factor)


@pytest.mark.parametrize("divergence", [1e-4, 0.0, -1.0])
def test_up_to_the_bound_there_is_no_penalty(divergence):
    assert constraint_factor(divergence, bound=1e-4, weight=1e3, form="squared") == 0
