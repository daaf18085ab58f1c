"""Which domains to draw from: the worst belief in a ball, by hand."""

from __future__ import annotations

import pytest

from mgrpo.robust_sampler import (
    RobustMixture,
    belief_after,
    capped,
    domain_probabilities,
    expected_value,
    hopeless_caps,
    updated_belief,
    worst_in_kl_ball,
    worst_in_tv_ball,
)

BELIEF, VALUES = [0.5, 0.3, 0.2], [0.9, 0.5, 0.1]
MIXTURES = [[0.8, 0.2, 0.0], [0.1, 0.8, 0.1], [0.0, 0.3, 0.7]]
EACH_ITS_OWN = [[1.0, 0.0], [0.0, 1.0]]


def test_the_worked_tv_ball():
    worst = worst_in_tv_ball(BELIEF, VALUES, radius=0.2)
    assert worst == pytest.approx([0.3, 0.3, 0.4])
    assert expected_value(BELIEF, VALUES) == pytest.approx(0.62)
    assert expected_value(worst, VALUES) == pytest.approx(0.46)


def test_what_the_best_group_does_not_have_the_next_one_gives():
    assert worst_in_tv_ball(BELIEF, VALUES, radius=0.6) == pytest.approx([0, 0.2, 0.8])
    assert worst_in_tv_ball(BELIEF, VALUES, radius=5.0) == pytest.approx([0, 0, 1])


def test_a_radius_of_zero_is_the_belief():
    assert worst_in_tv_ball(BELIEF, VALUES, radius=0) == BELIEF


def test_the_worked_kl_ball():
    worst = worst_in_kl_ball(BELIEF, VALUES, temperature=0.5)
    assert worst == pytest.approx([0.231667, 0.309351, 0.458982], abs=1e-6)
    assert expected_value(worst, VALUES) == pytest.approx(0.409074, abs=1e-6)


def test_a_large_temperature_is_the_belief_and_a_small_one_the_worst_group():
    assert worst_in_kl_ball(BELIEF, VALUES, temperature=1e9) == pytest.approx(BELIEF)
    assert worst_in_kl_ball(BELIEF, VALUES, temperature=1e-3) == pytest.approx([0, 0, 1])


@pytest.mark.parametrize(
    ("is_success", "expected"),
    [
        (True, [0.725806, 0.241935, 0.032258]),
        (False, [0.131579, 0.394737, 0.473684]),
    ],
)
def test_the_worked_belief(is_success, expected):
    found = updated_belief(BELIEF, VALUES, is_success=is_success)
    assert found == pytest.approx(expected, abs=1e-6)
    counts = {"num_successes": int(is_success), "num_failures": int(not is_success)}
    assert belief_after(BELIEF, VALUES, uniform_share=0, **counts) == pytest.approx(found)


def test_a_little_of_everything_is_mixed_in():
    found = updated_belief([1.0, 0.0], [0.5, 0.5], is_success=True, uniform_share=0.01)
    assert found == pytest.approx([0.995, 0.005])


def test_an_impossible_observation_teaches_nothing():
    assert updated_belief([0.4, 0.6], [0.0, 0.0], is_success=True) == [0.4, 0.6]
    counts = {"num_successes": 1, "num_failures": 1}
    found = belief_after([0.4, 0.6], [0.0, 1.0], uniform_share=0, **counts)
    assert found == pytest.approx([0.4, 0.6])


def test_thousands_of_observations_do_not_underflow():
    counts = {"num_successes": 5000, "num_failures": 5000}
    found = belief_after(BELIEF, VALUES, uniform_share=0.03, **counts)
    assert found == pytest.approx([0.01, 0.98, 0.01])


def test_the_worked_domain_probabilities():
    assert domain_probabilities([0.3, 0.3, 0.4], MIXTURES, floor=0.02) == pytest.approx(
        [0.27, 0.42, 0.31]
    )
    assert domain_probabilities(BELIEF, MIXTURES) == pytest.approx([0.43, 0.40, 0.17])


def test_no_domain_falls_below_the_floor():
    assert domain_probabilities([1.0, 0.0], EACH_ITS_OWN, floor=0.1) == pytest.approx([0.9, 0.1])


def test_raising_one_domain_may_push_another_below_the_floor():
    """The third at 0.3 leaves 0.7 for shares of 0.64 and 0.31: the second falls to 0.228."""
    found = domain_probabilities([1.0], [[0.64, 0.31, 0.05]], floor=0.3)
    assert found == pytest.approx([0.4, 0.3, 0.3])


def test_a_floor_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="2 domains cannot have"):
        domain_probabilities([1.0, 0.0], EACH_ITS_OWN, floor=0.6)


def test_a_hopeless_group_gets_half_of_the_radius_at_most():
    """The third would get 0.4; its cap is 0.2 + 0.1, and 0.1 goes back to the others evenly."""
    caps = hopeless_caps(BELIEF, [False, False, True], radius=0.2)
    assert caps == pytest.approx([1, 1, 0.3])
    assert capped([0.3, 0.3, 0.4], caps) == pytest.approx([0.35, 0.35, 0.3])


def test_what_is_cut_off_stays_below_the_others_caps():
    assert capped([0.5, 0.3, 0.2], [0.2, 0.4, 1.0]) == pytest.approx([0.2, 0.4, 0.4])


def test_caps_that_leave_room_for_nobody_are_spread():
    assert capped([0.5, 0.5], [0.2, 0.2]) == pytest.approx([0.5, 0.5])


# --- from step to step ---


def mixture(**settings):
    return RobustMixture(["a", "b"], EACH_ITS_OWN, [0.5, 0.5], **settings)


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


def test_a_group_sees_its_domains_by_their_shares_of_those_drawn():
    part = RobustMixture(["a", "b", "c"], MIXTURES, BELIEF)
    part.observe({"a": 1.0, "b": 0.0})
    assert part.values == pytest.approx([0.8, 1 / 9, 0.0])


def test_a_group_that_never_succeeds_is_held_back():
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
