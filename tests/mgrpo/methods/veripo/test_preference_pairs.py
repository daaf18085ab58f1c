"""The verifier's rules, on groups small enough to sort by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from mgrpo.errors import ConfigError
from mgrpo.methods.veripo.preference_pairs import (
    flags_of,
    make_consistency_check,
    most_repeats,
    pairs_of_group,
    percentile,
    reasoning_leads_to_answer,
)
from mgrpo.methods.veripo.settings import PreferenceSettings, VerifierSettings
from mgrpo.types import Completion, Reward
from tests.learner.builders import completion

SOUND = "3 and 4 are 7.\n\\boxed{7}"
LUCKY = "3 and 4 are 8.\n\\boxed{7}"
WRONG = "3 and 4 are 8.\n\\boxed{8}"


def one(
    number: int, text: str, length: int = 30, *, status: str = "scored", **changes: Any
) -> Completion:
    """Right when it answers 7; `length` different tokens unless they are given."""
    answer = text.rpartition("\\boxed{")[2].rstrip("}") if "\\boxed" in text else None
    is_right = answer == "7"
    tokens = changes.pop("token_ids", list(range(1, length + 1)))
    reward = Reward(value=float(is_right), correct=is_right, status=status, extracted_answer=answer)
    made = completion(
        f"q/{number}",
        None,
        text=text,
        token_ids=tokens,
        rollout_logprobs=[-1.0] * len(tokens),
    )
    return dataclasses.replace(made, **{"reward": reward, **changes})


def pairs(*group: Completion, **settings: Any) -> dict[str, tuple[str, str]]:
    """Kind -> (chosen, rejected) ids."""
    config = PreferenceSettings.model_validate(settings)
    found = pairs_of_group(group, config, make_consistency_check(config.verifier))
    return {pair.kind: (pair.chosen.completion_id, pair.rejected.completion_id) for pair in found}


def test_a_right_answer_is_preferred_to_a_wrong_one():
    assert pairs(one(1, WRONG), one(2, SOUND)) == {"penalty": ("q/2", "q/1")}


def test_a_group_that_is_all_right_and_sound_or_all_wrong_makes_no_pair():
    assert pairs(one(1, SOUND), one(2, SOUND)) == {}
    assert pairs(one(1, WRONG), one(2, WRONG)) == {}
    assert pairs() == {}


def test_the_longest_admissible_is_chosen_and_the_shortest_rejected():
    group = [one(1, SOUND, 20), one(2, SOUND, 40), one(3, WRONG, 50), one(4, WRONG, 25)]
    assert pairs(*group, kinds=["penalty"]) == {"penalty": ("q/2", "q/4")}


def test_of_equally_long_ones_the_first_counts():
    group = [one(n, text) for n, text in enumerate([SOUND, SOUND, WRONG, WRONG], start=1)]
    assert pairs(*group, kinds=["penalty"]) == {"penalty": ("q/1", "q/3")}


def test_wrong_answers_that_repeat_or_cannot_be_read_are_rejected_before_other_wrong_ones():
    babble = one(3, WRONG, token_ids=[1, 2] * 30)
    unread = one(4, "no idea", 90, status="unparsable")
    short = one(2, WRONG, 5)
    assert pairs(one(1, SOUND), short, babble, kinds=["penalty"]) == {"penalty": ("q/1", "q/3")}
    assert pairs(one(1, SOUND), short, unread, kinds=["penalty"]) == {"penalty": ("q/1", "q/4")}
    bad_form = one(
        5, WRONG, 70, reward=Reward(value=0.0, parts={"format": 0.0}, extracted_answer="8")
    )
    assert pairs(one(1, SOUND), short, bad_form, kinds=["penalty"]) == {"penalty": ("q/1", "q/5")}


def test_a_repetitive_right_answer_is_not_chosen_for_a_penalty():
    babble = one(1, SOUND, token_ids=[1, 2] * 40)
    assert pairs(babble, one(2, SOUND, 20), one(3, WRONG), kinds=["penalty"]) == {
        "penalty": ("q/2", "q/3")
    }


def test_right_by_its_own_reasoning_is_preferred_to_right_in_spite_of_it():
    group = [one(1, LUCKY), one(2, SOUND), one(3, WRONG)]
    assert pairs(*group, kinds=["consistency"]) == {"consistency": ("q/2", "q/1")}


def test_an_answer_that_checks_itself_is_preferred_to_one_that_does_not():
    checks = "3 and 4 are 8. Wait, 3 and 4 are 7.\n\\boxed{7}"
    group = [one(1, SOUND, 60), one(2, checks, 50), one(3, WRONG, 40), one(4, SOUND, 10)]
    # The quarter mark of 10, 40, 50, 60 is 32.5: only the fourth is short.
    assert pairs(*group, kinds=["reflection"]) == {"reflection": ("q/2", "q/4")}
    assert pairs(*group[:3], kinds=["reflection"]) == {"reflection": ("q/2", "q/3")}
    # A short completion is no model of reflection.
    group[1] = one(2, checks, 5)
    assert pairs(*group, kinds=["reflection"]) == {}


def test_failed_checks_and_what_the_policy_did_not_write_are_in_no_pair():
    failed = one(2, WRONG, status="timeout")
    repaired = one(3, WRONG, augmented_by="continued")
    assert pairs(one(1, SOUND), failed, repaired) == {}


def test_lengths_are_compared_among_usable_completions():
    flags = flags_of([one(1, SOUND, 10), one(2, SOUND, 20)], VerifierSettings(), lambda _: True)
    assert [flag.short for flag in flags] == [True, False]


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([10, 20, 30, 40], 25, 17.5), ([40, 10], 50, 25.0), ([7], 25, 7.0), ([], 25, 0.0)],
)
def test_a_percentile_lies_between_its_neighbours(values, percent, expected):
    assert percentile(values, percent) == expected


@pytest.mark.parametrize(
    ("tokens", "size", "expected"),
    [([1, 2, 1, 2, 1, 2], 2, 3), ([1, 1, 1], 2, 2), ([1, 2], 3, 0), ([1, 2, 3], 1, 1)],
)
def test_repeats_are_counted_at_every_place(tokens, size, expected):
    assert most_repeats(np.array(tokens, dtype=np.int32), size) == expected


def test_twenty_tokens_four_times_are_not_yet_repetitive():
    phrase = list(range(20))
    for times, expected in ((4, False), (5, True)):
        (flags,) = flags_of(
            [one(1, SOUND, token_ids=phrase * times)], VerifierSettings(), lambda _: True
        )
        assert flags.repetitive == expected


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("3+4=7.\n\\boxed{7}", "7", True),
        ("3+4=8.\n\\boxed{7}", "7", False),
        ("It costs 1,200 in all.\n\\boxed{1200}", "1200", True),
        ("\\boxed{7}", "7", False),
        ("It is warm.\n\\boxed{warm}", "warm", True),
        ("It is cold.\n\\boxed{warm}", "warm", False),
        ("\\boxed{8}? No: 3+4=7. \\boxed{7}", "7", True),
        ("It is 7", "7", False),
    ],
)
def test_the_last_number_before_the_answer_must_be_the_answer(text, answer, expected):
    reward = Reward(value=1.0, correct=True, extracted_answer=answer)
    assert reasoning_leads_to_answer(one(1, text, reward=reward)) == expected


def mentions_addition(given: Completion) -> bool:
    return "+" in given.text


def test_a_check_of_ones_own_is_asked_about_right_answers_alone():
    verifier = {"consistency": f"{__name__}:mentions_addition"}
    plus = "3+4=8.\n\\boxed{7}"
    group = [one(1, SOUND), one(2, plus), one(3, WRONG)]
    found = pairs(*group, kinds=["consistency"], verifier=verifier)
    assert found == {"consistency": ("q/2", "q/1")}


def test_without_a_check_everything_is_consistent():
    found = pairs(one(1, LUCKY), one(2, WRONG), verifier={"consistency": "off"})
    assert found == {"penalty": ("q/1", "q/2")}


@pytest.mark.parametrize(
    ("name", "message"),
    [("no_such_module:agrees", "cannot be imported"), ("math:pi", "is not callable")],
)
def test_a_check_that_is_none_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        make_consistency_check(VerifierSettings(consistency=name))


def test_a_rule_that_is_none_is_refused():
    with pytest.raises(ValueError, match="is not a rule"):
        VerifierSettings(consistency="vibes")
