"""An evaluation's numbers, from completions written by hand."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from fractions import Fraction

import pytest

from mgrpo.config import EvaluationConfig
from mgrpo.evaluation.summary import Evaluation, chains_of
from mgrpo.metrics.transitions import KINDS, final_answer
from mgrpo.types import Completion, CompletionId, Reward, RewardStatus

RIGHT, WRONG = "7", "8"


def completion(
    place: str,
    path: str,
    answer: str | None,
    *,
    guidance: int | None = None,
    status: RewardStatus | None = None,
) -> Completion:
    """The completion at a path such as "0.1": sample 0, its second correction."""
    parent, dot, _ = path.rpartition(".")
    state = status or ("unparsable" if answer is None else "scored")
    return Completion(
        id=CompletionId.named(f"{place}#{path}"),
        problem_id=f"problem-{place}",
        domain="even" if place[-1] in "02468" else "odd",
        layer=1 + path.count("."),
        parent_id=f"{place}#{parent}" if dot else None,
        group_key=place,
        prompt=[1],
        token_ids=[2],
        rollout_logprobs=[-0.1],
        finish_reason="stop",
        version_spans=((0, 0),),
        text="",
        prompt_text="",
        guidance_id=guidance,
        reward=Reward(
            value=float(answer == RIGHT),
            status=state,
            correct=answer == RIGHT,
            extracted_answer=answer,
        ),
    )


def one_turn(answers: dict[str, list[str | None]]) -> list[Completion]:
    return [
        completion(place, str(index), answer)
        for place, row in answers.items()
        for index, answer in enumerate(row)
    ]


def sampled(num_samples: int, **settings: object) -> EvaluationConfig:
    return EvaluationConfig(decoding="sampled", samples_per_problem=num_samples, **settings)


def random_chains(
    num_problems: int, num_turns: int, num_phrases: int, *, failing: float = 0.0
) -> list[Completion]:
    """Every attempt under every phrase, right or wrong by chance, with some checks failed."""
    rng = random.Random(3)

    def draw(place: str, path: str, guidance: int | None) -> Completion:
        status: RewardStatus | None = "timeout" if rng.random() < failing else None
        answer = rng.choice([RIGHT, WRONG, "9"])
        return completion(place, path, answer, guidance=guidance, status=status)

    done = []
    for index in range(num_problems):
        place = f"e{index}"
        done.append(draw(place, "0", None))
        for phrase in range(num_phrases if num_turns > 1 else 0):
            done.append(draw(place, f"0.{phrase}", phrase))
            for depth in range(2, num_turns):
                done.append(draw(place, f"0.{phrase}" + ".0" * (depth - 1), phrase))
    return done


def test_pass_and_majority_by_hand():
    completions = one_turn(
        {
            "e0": [RIGHT, WRONG, WRONG, RIGHT],  # a tie, and 7 came first
            "e1": [WRONG, "9", RIGHT, None],  # a tie of three, and 8 came first
            "e2": [None, None, None, RIGHT],  # one vote decides
        }
    )
    summary = Evaluation(completions, 1, sampled(4)).summary()
    assert summary["acc"] == [pytest.approx(4 / 12)]
    # c = 2, 1, 1 of n = 4: pass@2 = 5/6, 1/2, 1/2.
    assert summary["pass_at"]["1"] == [pytest.approx(1 / 3)]
    assert summary["pass_at"]["2"] == [pytest.approx((5 / 6 + 1 / 2 + 1 / 2) / 3)]
    assert summary["pass_at"]["4"] == [1.0]
    assert summary["maj_at"]["1"] == summary["pass_at"]["1"]
    # Blocks of two: (7 8)(8 7) -> 1, 0; (8 9)(7 -) -> 0, 1; (- -)(- 7) -> 0, 1.
    assert summary["maj_at"]["2"] == [0.5]
    assert summary["maj_at"]["4"] == [pytest.approx(2 / 3)]


def test_votes_are_counted_in_one_spelling():
    completions = one_turn({"e0": [WRONG, " 7. ", "$7$"], "e1": ["1,000", "1000", "2"]})
    completions = [
        replace(c, reward=Reward(value=0.0, correct="7" in answer, extracted_answer=answer))
        for c in completions
        for answer in [str(final_answer(c))]
    ]
    summary = Evaluation(completions, 1, sampled(3, pass_at=[3])).summary()
    assert summary["maj_at"] == {"3": [0.5]}  # 7 has two votes; 1000 has two, and is wrong


def test_checks_that_read_no_answer_give_no_majority():
    completions = [
        replace(c, reward=Reward(value=1.0, correct=True)) for c in one_turn({"e0": ["1", "2"]})
    ]
    summary = Evaluation(completions, 1, sampled(2)).summary()
    assert summary["pass_at"] == {"1": [1.0], "2": [1.0]}
    assert "maj_at" not in summary


def test_samples_of_different_phrases_are_not_mixed():
    completions = []
    for sample in range(2):
        completions.append(completion("e0", str(sample), WRONG))
        completions.append(completion("e0", f"{sample}.0", RIGHT, guidance=0))
        completions.append(completion("e0", f"{sample}.1", WRONG, guidance=1))
    summary = Evaluation(completions, 2, sampled(2)).summary()
    # Phrase 0 mends both samples, phrase 1 none: 1 and 0, not the 5/6 of one mixed group of four.
    assert summary["pass_at"]["2"] == [0.0, 0.5]
    assert summary["maj_at"]["2"] == [0.0, 0.5]


def test_drawn_phrases_leave_a_problem_s_samples_together():
    completions = []
    for sample, answer in enumerate([RIGHT, WRONG]):
        completions.append(completion("e0", str(sample), WRONG))
        completions.append(completion("e0", f"{sample}.0", answer, guidance=sample))
    summary = Evaluation(completions, 2, sampled(2, guidance="random")).summary()
    assert summary["pass_at"]["2"] == [0.0, 1.0]


def test_a_problem_left_with_too_few_samples_does_not_count():
    completions = one_turn({"e0": [RIGHT, RIGHT], "e1": [WRONG, WRONG]})
    completions[3] = completion("e1", "1", WRONG, status="timeout")
    summary = Evaluation(completions, 1, sampled(2)).summary()
    assert summary["num_failed_checks"] == 1
    assert summary["acc"] == [pytest.approx(2 / 3)]
    assert summary["pass_at"] == {"1": [0.5], "2": [1.0]}


@pytest.mark.parametrize("failing", [0.0, 0.15])
def test_the_gain_is_what_was_mended_less_what_was_spoilt_at_every_turn(failing: float):
    completions = random_chains(40, num_turns=3, num_phrases=7, failing=failing)
    evaluation = Evaluation(completions, 3, EvaluationConfig())
    summary = evaluation.summary()
    num_chains = len(evaluation.chains)
    assert (num_chains == 280) == (failing == 0.0)
    right = [sum(c.turns[turn].is_correct for c in evaluation.chains) for turn in range(3)]
    gains = []
    for turn, moves in enumerate(summary["transitions"], start=1):
        counts = moves["counts"]
        gained = counts["wrong_to_right"] - counts["right_to_wrong"]
        assert right[turn] - right[turn - 1] == gained  # whole numbers: exact
        assert moves["delta"] == float(Fraction(gained, num_chains))
        assert sum(counts[kind] for kind in KINDS) == num_chains
        assert summary["acc"][turn] == right[turn] / num_chains
        gains.append(gained)
    assert summary["delta"] == float(Fraction(sum(gains), num_chains))
    whole = summary["whole_chain"]["counts"]
    assert whole["wrong_to_right"] - whole["right_to_wrong"] == sum(gains)
    assert right[0] != right[1]  # else the identity would say nothing


def test_a_failed_check_takes_its_whole_chain_out_and_no_other():
    completions = [
        completion("e0", "0", RIGHT),
        completion("e0", "0.0", WRONG, guidance=0),
        completion("e0", "0.1", WRONG, guidance=1, status="error"),
        completion("e1", "0", WRONG),
        completion("e1", "0.0", RIGHT, guidance=0),
        completion("e1", "0.1", RIGHT, guidance=1),
    ]
    summary = Evaluation(completions, 2, EvaluationConfig()).summary()
    assert summary["acc"] == [pytest.approx(1 / 3), pytest.approx(2 / 3)]
    assert summary["delta"] == pytest.approx(1 / 3)
    assert summary["transitions"][0]["counts"]["right_to_wrong"] == 1
    assert summary["num_problems"] == 2 and summary["num_failed_checks"] == 1


def test_chains_come_in_the_order_of_the_attempts():
    completions = random_chains(2, num_turns=3, num_phrases=2)
    chains = chains_of(completions, 3)
    assert [chain.turns[2].completion_id for chain in chains] == [
        "e0#0.0.0",
        "e0#0.1.0",
        "e1#0.0.0",
        "e1#0.1.0",
    ]
    assert [chain.phrase for chain in chains] == [0, 1, 0, 1]


def test_domains_add_up_to_the_whole():
    summary = Evaluation(random_chains(20, 2, 3), 2, EvaluationConfig()).summary()
    domains = summary["domains"].values()
    assert sum(domain["num_problems"] for domain in domains) == 20
    for kind in ("wrong_to_right", "right_to_right"):
        whole = summary["transitions"][0]["counts"][kind]
        assert sum(d["transitions"][0]["counts"][kind] for d in domains) == whole


def test_the_same_seed_gives_the_same_intervals():
    completions = random_chains(30, 2, 2)
    first, again, other = (
        Evaluation(completions, 2, EvaluationConfig(), seed=seed).summary()["ci"]
        for seed in (-1, -1, 2)
    )
    assert first == again != other


def test_one_problem_has_no_interval():
    summary = Evaluation(one_turn({"e0": [RIGHT]}), 1, EvaluationConfig()).summary()
    assert "ci" not in summary


def test_an_evaluation_in_which_every_check_failed_has_no_right_answer():
    completions = [completion("e0", "0", RIGHT, status="timeout")]
    summary = Evaluation(completions, 1, EvaluationConfig()).summary()
    assert summary["acc"] == [0.0]
    assert summary["num_failed_checks"] == summary["num_problems"] == 1


def test_200_problems_under_7_phrases_are_summed_up_in_a_moment():
    evaluation = Evaluation(random_chains(200, 2, 7), 2, EvaluationConfig())
    evaluation.intervals()  # numpy's first call
    began = time.process_time()
    evaluation.summary()
    assert time.process_time() - began < 0.2  # measured: 0.02 s
