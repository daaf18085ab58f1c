"""Clip-Cov: the tokens that lose their gradient."""

import pytest
from pydantic import ValidationError

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from tests.learner.builders import long, plugin, solve_layer
from tests.learner.exact import UNCORRECTED, floats


def clipped(share, **keys):
    made = [long("q/1", 1.0, 2), long("q/2", -1.0, 2)]
    part = plugin("clip_cov", share=share, **keys)
    measurements = {"policy_logprobs": floats(-0.1, -3, -0.1, -3)}
    settings = ObjectiveConfig(**UNCORRECTED)
    solve = solve_layer(advantage="raw_reward")
    batch = build_batch(made, [solve], settings, plugins=[part], measurements=measurements)
    return [value for row in batch.all_rows for value in row.advantages]


def test_clip_cov_takes_the_gradient_of_tokens_of_high_covariance():
    assert clipped(0.5) == [0, 1, -1, 0]
    assert sorted(map(abs, clipped(1e-4))) == [0, 1, 1, 1]  # at least one
    assert clipped(1.0, lowest=1.45) == [1, 1, -1, -1]  # strictly between
    assert clipped(1.0, lowest=0, highest=1.45) == [1, 1, -1, -1]


def test_bounds_of_clip_cov_stand_in_order():
    with pytest.raises(ValidationError, match="is not below 1"):
        plugin("clip_cov", lowest=5, highest=1)
