"""CISPO's objective, as micro-batches put it into the loss."""

import math

import pytest

from tests.learner.builders import plugin
from tests.learner.objective_cases import faults, objective_and_gradient, one_row


def test_cispo_caps_the_weight_and_keeps_the_gradient():
    start = [math.log(0.4) - math.log(1.5)]
    value, gradient = objective_and_gradient(
        one_row(0.5, 1), [math.log(1.5)], plugin("cispo", cap=1.28), start=start
    )
    assert value == pytest.approx(-0.586426, abs=1e-6)
    assert gradient == pytest.approx([0.64])


@pytest.mark.parametrize(
    ("moved", "settings", "weight"),
    [
        (0.2, {}, math.exp(0.2)),
        (3.0, {}, 5.0),
        (-3.0, {}, math.exp(-3)),
        (-3.0, {"floor": 0.8}, 0.8),
    ],
)
def test_cispos_cap_is_the_ratio_itself_and_a_floor_is_optional(moved, settings, weight):
    _, gradient = objective_and_gradient(one_row(-1.0, 1), [moved], plugin("cispo", **settings))
    assert gradient == pytest.approx([-weight])


def test_a_cap_below_one_is_taken_for_a_distance_and_refused():
    assert faults("cispo", cap=0.28) == ["objective.loss.cap"]
