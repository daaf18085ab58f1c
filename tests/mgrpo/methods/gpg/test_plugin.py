"""GPG's advantages, through the step's batch."""

import pytest

from tests.learner.builders import plugin
from tests.learner.estimator_cases import advantages, batch_of, groups


def test_gpg_scales_up_for_the_groups_that_say_nothing():
    made = groups([1, 0], [1, 1])
    batch = batch_of(made, plugin("gpg"))
    assert batch.metrics["gpg/alpha"] == (2.0, 1.0)
    assert advantages(made, plugin("gpg")) == pytest.approx([1, -1, 0, 0])
    assert advantages(made, plugin("gpg", scale=False, divisor=2.0))[:2] == [0.25, -0.25]


def test_gpg_of_equal_rewards_alone_is_nothing():
    assert advantages(groups([0.1, 0.1, 0.1]), plugin("gpg")) == [0.0] * 3
