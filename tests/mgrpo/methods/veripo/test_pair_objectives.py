"""DPO's loss, its coefficients, and their equality with differentiating the pair."""

import pytest
import torch

from mgrpo.methods.veripo.pair_objectives import dpo_coefficients, dpo_losses, pair_margins
from tests.learner.exact import floats


def test_the_worked_pair():
    """Log-ratios +2 and -1, β 0.1: -log σ(0.3), and 0.1 σ(-0.3)."""
    margins = floats(2.0 - -1.0)
    assert dpo_losses(margins, beta=0.1).tolist() == pytest.approx([0.554355], abs=1e-6)
    assert torch.sigmoid(-0.1 * margins).tolist() == pytest.approx([0.425557], abs=1e-6)
    assert dpo_coefficients(margins, beta=0.1).tolist() == pytest.approx([0.042556], abs=1e-6)


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_coefficients_are_minus_the_derivative_by_the_margin(beta):
    margins = floats(-30.0, -1.0, 0.0, 0.5, 20.0).requires_grad_()
    dpo_losses(margins, beta=beta).sum().backward()
    expected = -dpo_coefficients(margins, beta=beta)
    torch.testing.assert_close(margins.grad, expected, rtol=1e-12, atol=1e-15)


def test_at_the_reference_a_pair_pulls_with_half_of_beta():
    assert dpo_coefficients(floats(0.0), beta=0.1).tolist() == [0.05]
    assert dpo_losses(floats(0.0), beta=0.1).tolist() == pytest.approx([0.693147], abs=1e-6)


def test_margins_are_of_pairs_and_rows_of_no_pair_have_none():
    found = pair_margins(
        floats(2.0, 9.0, -1.0, 0.5, 0.25),
        floats(1, 0, -1, -1, 1),
        torch.tensor([0, 1, 0, 2, 2]),
    )
    assert found.tolist() == [3.0, 0.0, 3.0, -0.25, -0.25]
    assert pair_margins(floats(), floats(), torch.tensor([], dtype=torch.int64)).tolist() == []
