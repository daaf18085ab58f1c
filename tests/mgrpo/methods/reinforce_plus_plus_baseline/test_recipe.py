"""REINFORCE++-baseline: the example of its page, by its recipe."""

import pytest

from learner.plugin import LearnerPlugin
from mgrpo.plugin import load_plugins
from tests.learner.estimator_cases import groups
from tests.mgrpo.methods.shipped import advantages_of, built, loss_and_gradient, shipped

BASELINE = shipped("reinforce_plus_plus_baseline")


def test_the_groups_mean_is_taken_off_and_the_step_gives_the_scale():
    """Centred 0.5, -0.5, 0, 0: mean 0, unbiased variance 0.5 / 3."""
    found = advantages_of(built(BASELINE, groups([1, 0], [1, 1])))
    assert list(found.values()) == pytest.approx([1.224745, -1.224745, 0, 0], abs=1e-6)


def test_another_group_s_spread_changes_the_scale_of_all():
    """Alone, ±0.5 have the variance 0.5: ±0.707107, which GRPO would give here in any step."""
    alone = advantages_of(built(BASELINE, groups([1, 0])))
    assert list(alone.values()) == pytest.approx([0.707107, -0.707107], abs=1e-6)


def test_whitening_counts_tokens_so_uniform_groups_are_near_0_and_train():
    """Tokens 0.5, 0.5, -0.5, 0, 0: mean 0.1, unbiased variance 0.7 / 4."""
    batch = built(BASELINE, groups([1, 0], [1, 1], lengths=[2, 1, 1, 1]))
    assert list(advantages_of(batch).values()) == pytest.approx(
        [0.956183, -1.434274, -0.239046, -0.239046], abs=1e-6
    )
    assert len(batch.rows) == 4


def test_the_loss_is_the_clipped_one_averaged_over_all_tokens():
    """The right answer's tokens at ratios 1.3 and 1.1, of five tokens."""
    rows = built(BASELINE, groups([1, 0], [1, 1], lengths=[2, 1, 1, 1])).rows
    loss, gradient = loss_and_gradient(BASELINE, rows, [1.3, 1.1, 1.0, 1.0, 1.0])
    terms = [1.2 * 0.956183, 1.1 * 0.956183, -1.434274, -0.239046, -0.239046]
    assert loss == pytest.approx(-sum(terms) / 5, abs=1e-6)
    assert gradient[:2] == pytest.approx([0, -1.1 * 0.956183 / 5], abs=1e-6)


def test_it_reads_no_reference():
    """The authors' KL term is off."""
    (part,) = load_plugins(BASELINE, LearnerPlugin)
    assert part.wanted_measurements() == frozenset()
    assert BASELINE.objective.kl.weight == 0
