from fractions import Fraction

import pytest

from mgrpo.errors import RewardError
from mgrpo.types import Reward
from rewards.failures import check_failed_fraction, failed_fraction
from rewards.score import TermReward, as_reward, combine, failed


def term(name, weight, **fields):
    return TermReward(name=name, weight=weight, reward=Reward(**fields))


@pytest.mark.parametrize(
    ("returned", "value", "correct"),
    [
        (True, 1.0, True),
        (False, 0.0, False),
        (0.5, 0.5, False),
        (1, 1.0, True),
        (Fraction(1, 4), 0.25, False),
    ],
)
def test_numbers_and_bools_are_rewards(returned, value, correct):
    reward = as_reward(returned)
    assert (reward.value, reward.correct, reward.status) == (value, correct, "scored")


@pytest.mark.parametrize(
    "returned",
    [
        None,
        "1",
        [1.0],
        float("nan"),
        float("-inf"),
        Reward(value=float("nan")),
        Reward(value="1"),  # type: ignore[arg-type]
        Reward(value=1.0, status="fine"),  # type: ignore[arg-type]
    ],
)
def test_anything_else_is_an_error_that_names_it(returned):
    reward = as_reward(returned)
    assert (reward.status, reward.value) == ("error", 0.0)
    assert "the check returned" in reward.detail


def test_the_value_is_the_weighted_sum_and_the_first_term_says_what_is_correct():
    reward = combine(
        [
            term("math_answer", 1.0, value=0.0, correct=False, extracted_answer="8", detail="8!"),
            term("format", 0.5, value=1.0, correct=True),
            term("format", -0.25, value=2.0),
        ]
    )
    assert reward.value == 0.0 + 0.5 - 0.5
    assert reward.parts == {"math_answer": 0.0, "format": 1.0, "format#2": 2.0}
    assert (reward.correct, reward.extracted_answer) == (False, "8")
    assert reward.detail == "math_answer: 8!"


@pytest.mark.parametrize(
    ("statuses", "combined"),
    [
        (["scored", "scored"], "scored"),
        (["unparsable", "scored"], "unparsable"),
        (["unparsable", "timeout"], "timeout"),
        (["timeout", "error"], "error"),
        (["scored", "error"], "error"),
    ],
)
def test_the_worst_status_counts(statuses, combined):
    reward = combine([term(s, 1.0, value=1.0, correct=True, status=s) for s in statuses])
    assert reward.status == combined
    if not reward.is_usable:
        assert (reward.value, reward.correct) == (0.0, False)


def test_an_unparsable_answer_keeps_what_other_terms_give():
    reward = combine([term("a", 1.0, value=0.0, status="unparsable"), term("b", 0.5, value=1.0)])
    assert (reward.value, reward.status) == (0.5, "unparsable")


def test_failures_up_to_the_limit_are_borne():
    rewards = [Reward(value=1.0)] * 8 + [failed("timeout", "slow"), failed("error", "oops")]
    assert failed_fraction(rewards) == 0.2
    check_failed_fraction(rewards, 0.2)
    check_failed_fraction([], 0.0)


def test_unparsable_completions_are_no_failures():
    check_failed_fraction([Reward(value=0.0, status="unparsable")] * 10, 0.0)


def test_beyond_the_limit_the_run_stops_with_counts_first_cause_and_advice():
    rewards = [Reward(value=1.0)] * 7 + [failed("timeout", "slow one")] * 2 + [failed("error", "")]
    with pytest.raises(RewardError) as caught:
        check_failed_fraction(rewards, 0.2)
    message = str(caught.value)
    assert "2 checks timed out and 1 crashed, of 10 (30%)" in message
    assert "slow one" in message
    assert "rewards.deadline_s" in message
