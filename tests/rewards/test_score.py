from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from mgrpo.errors import RewardError
from mgrpo.types import Reward
from rewards.failures import check_failed_fraction, failed_fraction
from rewards.score import MAX_FEEDBACK_CHARS, TermReward, as_reward, combine, failed


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
        (Decimal("0.5"), 0.5, False),
        (np.True_, 1.0, True),
        (np.isclose(1.0, 2.0), 0.0, False),
        (np.float32(0.5), 0.5, False),
        (np.float64(1.5), 1.5, True),
        (np.int64(1), 1.0, True),
        (np.array(0.25), 0.25, False),
        (np.array(True), 1.0, True),
        (torch.tensor(0.5), 0.5, False),
        (torch.tensor(1.0, requires_grad=True), 1.0, True),
        (torch.tensor(False), 0.0, False),
        (torch.tensor(1, dtype=torch.bfloat16), 1.0, True),
    ],
)
def test_numbers_and_bools_are_rewards(returned, value, correct):
    reward = as_reward(returned)
    assert (reward.value, reward.correct, reward.status) == (value, correct, "scored")
    assert (type(reward.value), type(reward.correct)) == (float, bool)


def test_the_fields_of_a_reward_may_be_scalars_of_other_libraries():
    parts = {"a": torch.tensor(1.0), "b": np.float16(0.5)}
    reward = as_reward(Reward(value=np.float32(0.5), correct=np.True_, parts=parts))
    assert reward == Reward(value=0.5, correct=True, parts={"a": 1.0, "b": 0.5})
    assert {type(part) for part in reward.parts.values()} == {float}
    assert type(as_reward(Reward(value=torch.tensor(2.0))).value) is float


@pytest.mark.parametrize(
    "returned",
    [
        None,
        "1",
        [1.0],
        float("nan"),
        float("-inf"),
        Reward(value=float("nan")),
        np.nan,
        np.float32("inf"),
        torch.tensor(float("nan")),
        np.array([1.0, 2.0]),
        torch.ones(1),
        np.str_("1"),
        1 + 2j,
        (1.0, "fine"),
        Reward(value=np.float32("nan")),
        Reward(value=np.ones(2)),
        Reward(value="1"),  # type: ignore[arg-type]
        Reward(value=1.0, status="fine"),  # type: ignore[arg-type]
        Reward(value=1.0, parts={"length": float("nan")}),
        Reward(value=0.0, status="error"),
    ],
)
def test_anything_else_is_an_error_that_names_it(returned):
    reward = as_reward(returned)
    assert (reward.status, reward.value) == ("error", 0.0)
    assert "the check returned" in reward.detail


@pytest.mark.parametrize(
    ("returned", "named"),
    [
        (None, "None of type NoneType, expected a single number"),
        (np.array([1.0, 2.0]), "of type numpy.ndarray with shape (2,), expected a single number"),
        (torch.ones(1, 3), "of type torch.Tensor with shape (1, 3), expected a single number"),
        (Reward(value="1"), "'1' of type str, expected a number"),
    ],
)
def test_the_message_says_what_it_was_and_what_is_wanted(returned, named):
    assert named in as_reward(returned).detail


def test_a_failure_without_a_word_is_said_to_be_one():
    timeout = as_reward(Reward(value=0.0, status="timeout"))
    assert timeout.detail == "the check returned the status 'timeout' without a detail"
    assert as_reward(Reward(value=0.0, status="unparsable")).detail == ""


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


def test_feedback_has_the_terms_texts_in_order_each_bounded():
    texts = ["a" * 5000, "", " broken \ud800 "]
    rewards = [as_reward(Reward(value=1.0, feedback=text)) for text in texts]
    terms = [TermReward(name=str(n), weight=1.0, reward=reward) for n, reward in enumerate(rewards)]
    assert combine(terms).feedback == f"{'a' * MAX_FEEDBACK_CHARS}\nbroken ?"
