"""Which domains to draw from: the worst mixture in a ball, by hand."""

from __future__ import annotations

import pytest

from mgrpo.methods.robust_sampler.mixture import (
    RobustMixture,
    capped,
    floored,
    hopeless_caps,
    worst_in_tv_ball,
)

SHARES, VALUES = [0.5, 0.3, 0.2], [0.9, 0.5, 0.1]


def test_the_worked_tv_ball():
    """Expected values 0.62 before and 0.46 after."""
    worst = worst_in_tv_ball(SHARES, VALUES, radius=0.2)
    assert worst == pytest.approx([0.3, 0.3, 0.4])


def test_what_the_best_group_does_not_have_the_next_one_gives():
    assert worst_in_tv_ball(SHARES, VALUES, radius=0.6) == pytest.approx([0, 0.2, 0.8])
    assert worst_in_tv_ball(SHARES, VALUES, radius=5.0) == pytest.approx([0, 0, 1])


def test_a_radius_of_zero_is_the_mixture_itself():
    assert worst_in_tv_ball(SHARES, VALUES, radius=0) == SHARES


def test_no_domain_falls_below_the_floor():
    assert floored([1.0, 0.0], 0.1) == pytest.approx([0.9, 0.1])


def test_raising_one_domain_may_push_another_below_the_floor():
    """The third at 0.3 leaves 0.7 for shares of 0.64 and 0.31: the second falls to 0.228."""
    assert floored([0.64, 0.31, 0.05], 0.3) == pytest.approx([0.4, 0.3, 0.3])


def test_a_floor_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="2 domains cannot have"):
        floored([1.0, 0.0], 0.6)


def test_a_hopeless_domain_gets_half_of_the_radius_at_most():
    """The third would get 0.4; its cap is 0.2 + 0.1, and 0.1 goes back to the others evenly."""
    caps = hopeless_caps(SHARES, [False, False, True], radius=0.2)
    assert caps == pytest.approx([1, 1, 0.3])
    assert capped([0.3, 0.3, 0.4], caps) == pytest.approx([0.35, 0.35, 0.3])


def test_what_is_cut_off_stays_below_the_others_caps():
    assert capped([0.5, 0.3, 0.2], [0.2, 0.4, 1.0]) == pytest.approx([0.2, 0.4, 0.4])


def test_caps_that_leave_room_for_nobody_are_spread():
    assert capped([0.5, 0.5], [0.2, 0.2]) == pytest.approx([0.5, 0.5])


# --- from step to step ---


def mixture(**settings):
    return RobustMixture(["a", "b"], [0.5, 0.5], **settings)


def test_problems_are_drawn_as_in_the_data_until_everything_was_seen():
    part = mixture()
    part.observe({"a": 0.9})
    assert part.probabilities() == {"a": pytest.approx(0.5), "b": pytest.approx(0.5)}
    part.observe({"b": 0.1})
    assert part.probabilities() == {"a": pytest.approx(0.3), "b": pytest.approx(0.7)}


def test_pass_rates_run_with_the_decay():
    part = mixture(decay=0.9)
    part.observe({"a": 1.0})
    part.observe({"a": 0.0})
    assert part.values == [pytest.approx(0.9), None]


def test_a_domain_that_never_succeeds_is_held_back():
    part = mixture(hopeless_steps=2)
    part.observe({"a": 0.9, "b": 0.0})
    assert part.probabilities()["b"] == pytest.approx(0.7)
    part.observe({"a": 0.9, "b": 0.0})
    assert part.probabilities()["b"] == pytest.approx(0.6)
    part.observe({"a": 0.9, "b": 0.1})
    assert part.probabilities()["b"] == pytest.approx(0.7)


def test_a_resumed_run_draws_with_the_same_chances():
    first, second = mixture(), mixture()
    first.observe({"a": 0.3, "b": 0.2})
    second.load_state_dict(first.state_dict())
    assert second.probabilities() == first.probabilities()
