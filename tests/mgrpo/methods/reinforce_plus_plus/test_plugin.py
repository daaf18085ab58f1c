"""REINFORCE++: advantages whitened over the step, through its batch."""

import math

import pytest
from pydantic import ValidationError

from tests.learner.builders import plugin
from tests.learner.estimator_cases import advantages, batch_of, groups
from tests.learner.exact import floats


def test_reinforce_plus_plus_whitens_over_the_whole_batch():
    found = advantages(groups([1, 0], [1, 1]), plugin("reinforce_plus_plus"))
    assert found == pytest.approx([0.5, -1.5, 0.5, 0.5], abs=1e-6)


def test_token_counts_weigh_in_the_whitening():
    """Tokens 1, 1, 0: mean 2/3, unbiased deviation sqrt(1/3)."""
    found = advantages(groups([1, 0], lengths=[2, 1]), plugin("reinforce_plus_plus"))
    assert found == pytest.approx([math.sqrt(3) / 3, -2 * math.sqrt(3) / 3], abs=1e-6)


def test_with_a_baseline_the_groups_mean_is_taken_off_first():
    part = plugin("reinforce_plus_plus", baseline="group_mean", whiten_over="completions")
    found = advantages(groups([1, 0], [1, 1]), part)
    assert found == pytest.approx([1.224745, -1.224745, 0, 0], abs=1e-6)
    longer = advantages(groups([1, 0], [1, 1], lengths=[5, 2, 3, 1]), part)
    assert longer == pytest.approx(found)


def test_each_token_pays_for_its_own_and_all_later_distance_to_the_reference():
    made = groups([1, 0], lengths=[3, 1])
    measurements = {
        "policy_logprobs": floats(-0.1, -0.2, -0.3, -0.5),
        "ref_logprobs": floats(-0.3, -0.3, -0.3, -0.9),
    }
    part = plugin("reinforce_plus_plus", kl_weight=0.5)
    assert part.wanted_measurements() == {"policy_logprobs", "ref_logprobs"}
    assert plugin("reinforce_plus_plus").wanted_measurements() == frozenset()
    batch = batch_of(made, part, measurements=measurements)
    # Gaps 0.2, 0.1, 0 and 0.4.
    returns = floats(1 - 0.15, 1 - 0.05, 1.0, 0 - 0.2)
    expected = (returns - returns.mean()) / returns.std()
    assert [value for row in batch.all_rows for value in row.advantages] == pytest.approx(
        expected.tolist(), abs=1e-6
    )


def test_equal_rewards_whiten_to_nothing():
    assert advantages(groups([1, 1], [1, 1]), plugin("reinforce_plus_plus")) == [0.0] * 4


def test_a_penalty_at_each_token_cannot_be_whitened_by_completion():
    with pytest.raises(ValidationError, match="no one advantage of a completion"):
        plugin("reinforce_plus_plus", kl_weight=0.1, whiten_over="completions")
