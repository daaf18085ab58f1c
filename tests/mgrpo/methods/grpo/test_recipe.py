"""GRPO: the examples of its page, by its recipe."""

import math

import pytest

from mgrpo.config import ObjectiveConfig
from tests.learner.builders import attempts, long
from tests.mgrpo.methods.shipped import advantages_of, built, loss_and_gradient, shipped

GRPO = shipped("grpo")
HALF = math.sqrt(0.5)
"""The z-score of one of two: 0.5 / 0.707107."""


def two_rows(*overrides: str):
    """A right answer of two tokens and a wrong one of one."""
    method = shipped("grpo", *overrides)
    return method, built(method, [long("q/1", 1.0, 2), long("q/2", 0.0, 1)]).rows


def test_a_group_is_compared_with_its_own_mean_and_spread():
    """Mean 0.5, deviation 0.577350 of G - 1."""
    found = advantages_of(built(GRPO, attempts([1, 0, 0, 1])))
    assert list(found.values()) == pytest.approx([0.866025, -0.866025, -0.866025, 0.866025], 1e-5)


@pytest.mark.parametrize("reward", [0, 1])
def test_a_group_of_equal_rewards_has_nothing_to_compute(reward: float):
    batch = built(GRPO, attempts([reward] * 4))
    assert set(advantages_of(batch).values()) == {0.0} and batch.rows == []


def test_the_clipped_loss_of_the_page():
    """Ratios 1.3, 0.9 and 0.7: terms 1.2, 0.9 and -0.8, here times 0.707107."""
    loss, gradient = loss_and_gradient(*two_rows(), [1.3, 0.9, 0.7])
    assert loss == pytest.approx(-0.125 * HALF, rel=1e-5)
    # Of the mean over two completions and two tokens: a quarter of the ratio.
    assert gradient == pytest.approx([0, -0.9 * HALF / 4, 0], rel=1e-5)


@pytest.mark.parametrize(("ratio", "weight"), [(1.5, 1.5), (3.0, 2.0)])
def test_an_engine_s_other_probabilities_are_weighed_up_to_2(ratio: float, weight: float):
    loss, _ = loss_and_gradient(*two_rows(), [1.3, 0.9, 0.7], old=-1.0 + math.log(ratio))
    assert loss == pytest.approx(-0.125 * HALF * weight, rel=1e-5)


@pytest.mark.parametrize(("gap", "k3"), [(-0.1, 0.00517092), (0.1, 0.00483742), (-3.0, 16.085537)])
def test_a_kl_weight_adds_k3_without_a_bound(gap: float, k3: float):
    """exp(d) - d - 1 with d = log p_ref - log p = 0.1, -0.1 and 3."""
    plain, _ = loss_and_gradient(*two_rows(), [1.0] * 3)
    with_kl, _ = loss_and_gradient(*two_rows("objective.kl.weight=0.04"), [1.0] * 3, ref_gap=gap)
    assert with_kl - plain == pytest.approx(0.04 * k3, rel=1e-5)


def test_it_is_what_all_defaults_say():
    (layer,) = GRPO.layers
    assert GRPO.objective == ObjectiveConfig() and GRPO.plugins == []
    assert layer.model_fields_set <= {
        "name",
        "kind",
        "group_size",
        "max_completion_tokens",
        "system_prompt",
    }
    assert layer.group_size == 16
