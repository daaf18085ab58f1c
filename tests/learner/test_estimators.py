"""What advantage estimators share."""

import pytest

from tests.learner.builders import long, plugin, with_status
from tests.learner.estimator_cases import advantages, groups


@pytest.mark.parametrize("part", ["rloo", "reinforce_plus_plus", "gpg"], ids=lambda use: use)
def test_completions_whose_check_failed_have_no_advantage_and_move_nobodys(part):
    made = groups([1, 0, 0], [1, 1])
    plain = advantages(made, plugin(part))
    failed = [*made, with_status(long("q/9", 0.0, 1), "error")]
    assert advantages(failed, plugin(part)) == pytest.approx([*plain, 0.0])
