"""Two policies on the same problems, from completions written by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mgrpo.config import EvaluationConfig
from mgrpo.errors import DataError
from mgrpo.evaluation.comparison import BOOTSTRAP, MCNEMAR, compare, problem_means
from mgrpo.evaluation.summary import Evaluation
from tests.mgrpo.evaluation.test_summary import RIGHT, WRONG, completion, sampled

GREEDY = EvaluationConfig(guidance="first")


def two_turns(first: str, second: str, *, phrases: int = 1) -> Evaluation:
    """One character per problem: + right, - wrong. All phrases answer alike."""
    answer = {"+": RIGHT, "-": WRONG}
    done = []
    for index, (before, after) in enumerate(zip(first, second, strict=True)):
        done.append(completion(f"e{index}", "0", answer[before]))
        done += [
            completion(f"e{index}", f"0.{phrase}", answer[after], guidance=phrase)
            for phrase in range(phrases)
        ]
    settings = GREEDY if phrases == 1 else EvaluationConfig()
    return Evaluation(done, 2, settings)


def test_one_greedy_answer_each_is_compared_by_the_exact_mcnemar_test():
    # Turn 1: A alone is right once, B alone eight times, and they agree on three.
    a = two_turns("+" + "-" * 8 + "++-", "+" * 12)
    b = two_turns("-" + "+" * 8 + "++-", "+" * 12)
    result = compare(a, b)
    first, second = result["turns"]
    assert (first["only_a"], first["only_b"]) == (1, 8)
    assert (first["test"], first["p_value"]) == (MCNEMAR, pytest.approx(0.0390625))
    assert first["acc"] == [pytest.approx(3 / 12), pytest.approx(10 / 12)]
    assert first["difference"] == pytest.approx(-7 / 12)
    low, high = first["ci"]
    assert low <= first["difference"] <= high < 0
    assert (second["difference"], second["p_value"]) == (0.0, 1.0)
    # A gains 9 by its second look, B 2.
    assert result["delta"]["difference"] == pytest.approx(7 / 12)
    assert result["delta"]["test"] == BOOTSTRAP
    assert result["num_problems"] == 12 and result["num_unpaired"] == 0


def test_several_phrases_are_compared_by_the_bootstrap_but_first_attempts_are_not():
    a, b = two_turns("+-+-", "++++", phrases=2), two_turns("++--", "+++-", phrases=2)
    first, second = compare(a, b)["turns"]
    assert (first["test"], second["test"]) == (MCNEMAR, BOOTSTRAP)
    assert "only_a" not in second
    assert second["difference"] == 0.25


def test_sampled_answers_are_compared_by_their_mean_per_problem():
    def evaluation(shares: list[int]) -> Evaluation:
        done = [
            completion(f"e{index}", str(sample), RIGHT if sample < share else WRONG)
            for index, share in enumerate(shares)
            for sample in range(4)
        ]
        return Evaluation(done, 1, sampled(4))

    result = compare(evaluation([4, 2, 3, 0]), evaluation([2, 2, 1, 0]))
    [turn] = result["turns"]
    assert turn["difference"] == pytest.approx((0.5 + 0 + 0.5 + 0) / 4)
    assert turn["test"] == BOOTSTRAP
    assert 0 < turn["p_value"] <= 1
    assert result["delta"] is None  # one turn has no second look


def test_problems_are_matched_by_their_ids_not_by_their_places():
    a = two_turns("+-+", "+-+")
    b = Evaluation(
        [c for c in two_turns("+-+", "+-+").completions if c.problem_id[-1] != "0"], 2, GREEDY
    )
    result = compare(a, b)
    assert (result["num_problems"], result["num_unpaired"]) == (2, 1)
    assert result["turns"][0]["acc"] == [0.5, 0.5]


def test_a_problem_that_is_asked_twice_counts_twice():
    completions = two_turns("+-", "+-").completions
    same = [replace(c, problem_id="same") for c in completions]
    means = problem_means(Evaluation(same, 2, GREEDY))
    assert set(means) == {("same", 0), ("same", 1)}
    np.testing.assert_array_equal(means["same", 1], [0.0, 0.0])


def test_without_resamples_there_is_a_difference_and_no_interval():
    settings = EvaluationConfig(guidance="first", bootstrap_resamples=0)
    a, b = (Evaluation(two_turns(text, text).completions, 2, settings) for text in ("++-+", "+---"))
    result = compare(a, b)
    assert "ci" not in result["turns"][0]
    assert result["turns"][0]["p_value"] == pytest.approx(0.5)  # 2 against none: 2 / 2^2
    assert result["delta"] == {"difference": 0.0}


def test_one_problem_has_a_difference_and_no_interval():
    result = compare(two_turns("+", "+"), two_turns("+", "-"))
    assert result["turns"][1]["difference"] == 1.0
    assert "ci" not in result["turns"][1]
    assert result["turns"][1]["p_value"] == 1.0  # 1 against none: 2 / 2^1
    assert result["delta"] == {"difference": 1.0}


def test_policies_without_a_problem_in_common_are_refused():
    other = [replace(c, problem_id="other") for c in two_turns("+", "+").completions]
    with pytest.raises(DataError, match="no common problem"):
        compare(two_turns("+", "+"), Evaluation(other, 2, GREEDY))
