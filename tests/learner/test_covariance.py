"""Covariances of advantages and log-probabilities, and the tokens that they choose."""

import pytest
import torch

from learner.covariance import drawn_between, highest_share, token_covariances
from tests.learner.exact import floats

EVERY = torch.tensor([True] * 4)


def test_covariances_of_the_worked_example():
    found = token_covariances(floats(1, 1, -1, -1), floats(-0.1, -3, -0.1, -3), EVERY)
    assert found.tolist() == pytest.approx([1.45, -1.45, -1.45, 1.45])


def test_means_are_over_the_tokens_that_count():
    mask = torch.tensor([True, True, False, True])
    found = token_covariances(floats(1, 1, 99, -2), floats(-1, -2, 99, -3), mask)
    assert found.tolist() == pytest.approx([1, 0, 0, 2])


def test_the_draw_is_random_by_step_and_the_same_for_all_ranks():
    covariances, mask = floats(*([2.0] * 100)), torch.ones(100, dtype=torch.bool)

    def draw(seed):
        return drawn_between(covariances, mask, lowest=1, highest=5, share=0.1, seed=seed)

    assert int(draw(0).sum()) == 10
    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))


def test_the_highest_share_of_all_tokens():
    mask = torch.tensor([True, True, True, False])
    found = highest_share(floats(1, 3, 2, 9), mask, share=2 / 3)
    assert found.tolist() == [False, True, True, False]
