"""RLOO's advantages, through the step's batch."""

import pytest

from tests.learner.builders import attempts, plugin, with_status
from tests.learner.estimator_cases import advantages, groups
from tests.learner.exact import floats


def test_rloo_compares_with_the_others():
    found = advantages(attempts([1, 0, 0, 1]), plugin("rloo"))
    assert found == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3], abs=1e-9)


def test_rloo_keeps_groups_apart_and_leaves_failed_checks_out():
    made = groups([1, 0, 1], [3, 1])
    made[2] = with_status(made[2], "timeout")
    assert advantages(made, plugin("rloo")) == pytest.approx([1, -1, 0, 2, -2])


def test_rloo_gives_nothing_to_a_completion_without_others_and_to_equal_ones():
    assert advantages(groups([1.0]), plugin("rloo")) == [0.0]
    assert advantages(groups([0.1, 0.1, 0.1]), plugin("rloo")) == [0.0, 0.0, 0.0]


def test_rloo_normalised_has_mean_0_and_deviation_1():
    found = floats(
        *advantages(groups([1, 0, 0], [1, 1, 0]), plugin("rloo", normalise=True, epsilon=0.0))
    )
    assert float(found.mean()) == pytest.approx(0, abs=1e-12)
    assert float(found.std()) == pytest.approx(1)
