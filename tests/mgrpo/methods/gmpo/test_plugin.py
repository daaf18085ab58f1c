"""GMPO's objective, as micro-batches put it into the loss."""

import pytest

from tests.learner.builders import plugin
from tests.learner.objective_cases import objective_and_gradient, one_row, same_as_direct


@pytest.mark.parametrize(
    ("advantage", "expected", "moves"),
    [(1.0, 1.051271, [False, True]), (-1.0, -1.161834, [True, True])],
)
def test_gmpo_holds_ratios_back_where_the_advantage_pushes_them(advantage, expected, moves):
    value, gradient = objective_and_gradient(one_row(advantage, 2), [0.6, -0.3], plugin("gmpo"))
    assert value == pytest.approx(expected, abs=1e-6)
    assert [slope != 0 for slope in gradient] == moves


def test_gmpo_with_cut_groups_is_its_definition():
    def direct(own, old, advantage):
        held = (own - old).clamp(max=0.3) if advantage > 0 else (own - old).clamp(min=-0.2)
        return advantage * held.mean().exp()

    same_as_direct(direct, plugin("gmpo", clip_low=0.2, clip_high=0.3))
