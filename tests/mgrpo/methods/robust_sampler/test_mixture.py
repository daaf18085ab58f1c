"""Which domains to draw from: the worst belief in a ball, by hand."""

from __future__ import annotations

import json
import math

import pytest
from pydantic import ValidationError

from mgrpo.methods.robust_sampler.mixture import (
    RobustMixture,
    RobustSamplerSettings,
    capped,
    domain_shares,
    fitting_belief,
    floored,
    hopeless_caps,
    updated_belief,
    worst_in_kl_ball,
    worst_in_tv_ball,
)

BELIEF, VALUES = [0.5, 0.3, 0.2], [0.9, 0.5, 0.1]
GROUPS = [[0.8, 0.2, 0.0], [0.1, 0.8, 0.1], [0.0, 0.3, 0.7]]
EACH_ITS_OWN = [[1.0, 0.0], [0.0, 1.0]]


def test_the_worked_tv_ball():
    """Expected values 0.62 before and 0.46 after."""
    worst = worst_in_tv_ball(BELIEF, VALUES, radius=0.2)
    assert worst == pytest.approx([0.3, 0.3, 0.4])


def test_what_the_best_group_does_not_have_the_next_one_gives():
    assert worst_in_tv_ball(BELIEF, VALUES, radius=0.6) == pytest.approx([0, 0.2, 0.8])
    assert worst_in_tv_ball(BELIEF, VALUES, radius=5.0) == pytest.approx([0, 0, 1])


def test_a_radius_of_zero_is_the_belief_itself():
    assert worst_in_tv_ball(BELIEF, VALUES, radius=0) == BELIEF


def test_the_worked_kl_ball():
    worst = worst_in_kl_ball(BELIEF, VALUES, temperature=0.5)
    assert worst == pytest.approx([0.231667, 0.309351, 0.458982], abs=1e-6)
    assert sum(b * v for b, v in zip(worst, VALUES, strict=True)) == pytest.approx(
        0.409074, abs=1e-6
    )


def test_a_large_temperature_is_the_belief_and_a_small_one_the_worst_group():
    assert worst_in_kl_ball(BELIEF, VALUES, temperature=1e9) == pytest.approx(BELIEF)
    assert worst_in_kl_ball(BELIEF, VALUES, temperature=1e-6) == pytest.approx([0, 0, 1])
    assert worst_in_kl_ball([1.0, 0.0], [1.0, 0.0], temperature=1e-6) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("right", "expected"),
    [(1.0, [0.725806, 0.241935, 0.032258]), (0.0, [0.131579, 0.394737, 0.473684])],
)
def test_the_worked_belief(right, expected):
    found = updated_belief(BELIEF, VALUES, right=right, forgetting=0)
    assert found == pytest.approx(expected, abs=1e-6)


def test_two_observations_are_one_and_another():
    """A success and a failure: 0.5 * 0.09, 0.3 * 0.25, 0.2 * 0.09, over their sum 0.138."""
    found = updated_belief(BELIEF, VALUES, right=0.5, evidence=2, forgetting=0)
    assert found == pytest.approx([0.045 / 0.138, 0.075 / 0.138, 0.018 / 0.138])


def test_a_little_of_everything_is_mixed_in():
    found = updated_belief([1.0, 0.0], [0.5, 0.5], right=1.0, forgetting=0.01)
    assert found == pytest.approx([0.995, 0.005])


def test_an_impossible_observation_teaches_nothing():
    assert updated_belief([0.4, 0.6], [0.0, 0.0], right=1.0, forgetting=0) == [0.4, 0.6]
    assert updated_belief([0.4, 0.6], [0.0, 1.0], right=0.5, forgetting=0) == [0.4, 0.6]


def test_thousands_of_observations_do_not_underflow():
    found = updated_belief(BELIEF, VALUES, right=0.5, evidence=10_000, forgetting=0.03)
    assert found == pytest.approx([0.01, 0.98, 0.01])


def test_the_worked_domain_shares():
    assert domain_shares([0.3, 0.3, 0.4], GROUPS) == pytest.approx([0.27, 0.42, 0.31])
    assert domain_shares(BELIEF, GROUPS) == pytest.approx([0.43, 0.40, 0.17])


def test_the_belief_that_fits_the_data_draws_as_the_data_is_mixed():
    assert fitting_belief([0.43, 0.40, 0.17], GROUPS) == pytest.approx(BELIEF, abs=1e-6)
    assert fitting_belief([0.3, 0.7], EACH_ITS_OWN) == [0.3, 0.7]


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
    caps = hopeless_caps(BELIEF, [False, False, True], margin=0.1)
    assert caps == pytest.approx([1, 1, 0.3])
    assert capped([0.3, 0.3, 0.4], caps) == pytest.approx([0.35, 0.35, 0.3])


def test_what_is_cut_off_stays_below_the_others_caps():
    assert capped([0.5, 0.3, 0.2], [0.2, 0.4, 1.0]) == pytest.approx([0.2, 0.4, 0.4])


def test_caps_that_leave_room_for_nobody_are_spread():
    assert capped([0.5, 0.5], [0.2, 0.2]) == pytest.approx([0.5, 0.5])


# --- from step to step ---


def mixture(**settings):
    return RobustMixture(["a", "b"], [0.5, 0.5], EACH_ITS_OWN, RobustSamplerSettings(**settings))


def outcomes(**rates):
    """Ten attempts of each domain, of which so many were right."""
    return {name: [n < round(10 * rate) for n in range(10)] for name, rate in rates.items()}


def test_problems_are_drawn_as_in_the_data_until_everything_was_seen():
    part = mixture()
    part.observe(outcomes(a=0.9))
    assert part.probabilities() == {"a": pytest.approx(0.5), "b": pytest.approx(0.5)}
    part.observe(outcomes(b=0.1))
    assert part.probabilities() == {"a": pytest.approx(0.3), "b": pytest.approx(0.7)}


def test_pass_rates_run_with_the_decay():
    part = mixture(decay=0.9)
    part.observe(outcomes(a=1.0))
    part.observe(outcomes(a=0.0))
    assert part.values == [pytest.approx(0.9), None]


def test_a_group_sees_its_domains_by_their_shares_of_those_drawn():
    part = RobustMixture(["a", "b", "c"], [0.43, 0.4, 0.17], GROUPS, RobustSamplerSettings())
    part.observe(outcomes(a=1.0, b=0.0))
    assert part.values == pytest.approx([0.8, 1 / 9, 0.0])


def test_the_worst_belief_in_groups_draws_their_domains():
    settings = RobustSamplerSettings(decay=0.0)
    part = RobustMixture(["a", "b", "c"], [0.43, 0.4, 0.17], GROUPS, settings)
    part.values = [0.9, 0.5, 0.1]
    assert list(part.probabilities().values()) == pytest.approx([0.27, 0.42, 0.31], abs=1e-6)


def test_the_kl_ball_draws_by_its_temperature():
    part = mixture(ball="kl", temperature=0.5)
    part.observe(outcomes(a=0.9, b=0.4))
    high = math.exp(-0.4 / 0.5)
    assert part.probabilities()["b"] == pytest.approx(high / (high + math.exp(-0.9 / 0.5)))


def test_an_adaptive_belief_follows_outcomes_once_every_group_was_seen():
    """Right in 0.9 and 0.1; then all are right: 0.9 to 0.1, and the radius takes 0.2 of it."""
    part = mixture(belief="adaptive", forgetting=1e-9)
    part.observe(outcomes(a=0.9, b=0.1))
    assert part.belief == [0.5, 0.5]
    part.observe(outcomes(a=1.0))
    assert part.belief == pytest.approx([0.9, 0.1])
    assert part.probabilities() == {"a": pytest.approx(0.7), "b": pytest.approx(0.3)}
    part.observe({})
    assert part.belief == pytest.approx([0.9, 0.1])
    fixed = mixture()
    fixed.observe(outcomes(a=0.9, b=0.1))
    fixed.observe(outcomes(a=1.0))
    assert fixed.belief == [0.5, 0.5]


@pytest.mark.parametrize(("ball", "most"), [("tv", 0.6), ("kl", 0.5)])
def test_a_domain_that_never_succeeds_is_held_back(ball, most):
    part = mixture(hopeless_steps=2, **({} if ball == "tv" else {"ball": "kl"}))
    part.observe(outcomes(a=0.9, b=0.0))
    free = part.probabilities()["b"]
    assert free > most
    part.observe(outcomes(a=0.9, b=0.0))
    assert part.probabilities()["b"] == pytest.approx(most)
    part.observe(outcomes(a=0.9, b=0.1))
    assert part.probabilities()["b"] > most


def test_a_resumed_run_draws_with_the_same_chances():
    first, second = mixture(belief="adaptive"), mixture(belief="adaptive")
    for _ in range(2):
        first.observe(outcomes(a=0.3, b=0.2))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.probabilities() == first.probabilities()
    assert second.belief == first.belief != [0.5, 0.5]


def test_a_belief_that_is_none_is_refused():
    state = mixture().state_dict() | {"belief": [0.0, 0.0]}
    with pytest.raises(ValueError, match="another sum than 1"):
        mixture().load_state_dict(state)


def test_the_state_of_other_groups_is_refused():
    part = RobustMixture(["a", "b", "c"], [0.4, 0.4, 0.2], GROUPS, RobustSamplerSettings())
    with pytest.raises(ValueError, match="not the 2 groups"):
        mixture().load_state_dict(part.state_dict())


@pytest.mark.parametrize(
    "settings",
    [
        {"ball": "kl", "radius": 0.1},
        {"temperature": 0.1},
        {"evidence": 2.0},
        {"forgetting": 0.1},
        {"groups": {"g": {"a": 0.0}}},
    ],
)
def test_keys_without_effect_are_refused(settings):
    with pytest.raises(ValidationError):
        RobustSamplerSettings(**settings)
