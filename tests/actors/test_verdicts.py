"""Verdicts: how they are read, what they earn, and what is corrected behind them."""

from __future__ import annotations

import random

import pytest
from pydantic import ValidationError

from actors.layers import choose_parents
from actors.scripted import ScriptedEngine
from actors.templates import PromptBuilder, review_messages
from actors.verdicts import read_verdict, verdict_reward
from mgrpo.config import CorrectLayer, LayerConfig, SolveLayer, VerifyLayer
from mgrpo.config.layers import VerdictPhrases
from mgrpo.types import Completion, Reward
from tests.actors.byte_tokenizer import END
from tests.actors.test_layers import RIGHT, TIMEOUT, WRONG, attempt, ids
from tests.actors.test_rollout import PROBLEMS, TOKENIZER, rollout, run

PHRASES = VerdictPhrases()


@pytest.mark.parametrize(
    ("text", "accepts"),
    [
        ("2 + 2 = 4. The answer is correct.", True),
        ("Step 2 is off. THE ANSWER IS WRONG", False),
        ("The answer is correct? No: the answer is wrong.", False),
        ("The answer is wrong? No: the answer is correct.", True),
        ("I cannot say.", None),
        ("", None),
    ],
)
def test_the_phrase_that_ends_last_is_the_verdict(text: str, accepts: bool | None) -> None:
    assert read_verdict(text, PHRASES) is accepts


def test_phrases_are_the_recipe_s_and_several_may_say_the_same() -> None:
    phrases = VerdictPhrases(right=["it stands", "as before"], wrong=[", not "])
    assert read_verdict("Yes, it stands.", phrases) is True
    assert read_verdict("7 + 8 = 15, not 14.", phrases) is False
    assert read_verdict("7 + 8 = 15, not 14; no: as before.", phrases) is True


def test_phrases_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(ValidationError, match="cannot be told"):
        VerdictPhrases(right=["correct"], wrong=["incorrect"])


@pytest.mark.parametrize(
    ("text", "check", "value", "status", "correct"),
    [
        ("The answer is correct", RIGHT, 1.0, "scored", True),
        ("The answer is wrong", RIGHT, 0.0, "scored", False),
        ("The answer is correct", WRONG, 0.0, "scored", False),
        ("The answer is wrong", WRONG, 1.0, "scored", True),
        ("Hm.", WRONG, 0.0, "unparsable", False),
        ("The answer is wrong", TIMEOUT, 0.0, "timeout", False),
    ],
)
def test_a_verdict_earns_its_agreement_with_the_check(
    text: str, check: Reward, value: float, status: str, correct: bool
) -> None:
    found = verdict_reward(text, PHRASES, check)
    assert (found.value, found.status, found.correct) == (value, status, correct)


def verify_chain() -> list[LayerConfig]:
    return [
        SolveLayer(name="solve", group_size=2),
        VerifyLayer(name="verify", group_size=2),
        CorrectLayer.model_validate(
            {
                "name": "revise",
                "group_size": 2,
                "parents": "rejected",
                "layout": "self_continue",
                "guidance": {"phrases": ["So I write it anew:"]},
            }
        ),
    ]


def script(prompt: list[int], index: int) -> str:
    """Attempts 0 and 1; verdicts that accept, or say nothing; revisions that are right for p1."""
    text = TOKENIZER.decode(prompt)
    if text.endswith("So I write it anew:"):
        return "1"
    if "check this solution" in text:
        return ["The answer is correct", "Hm."][index]
    return str(index)


def sampled() -> dict[str, Completion]:
    engine = ScriptedEngine(script, encode=TOKENIZER.encode, end_id=END)
    return {one.completion_id: one for one in run(rollout(engine, verify_chain()))}


def test_verdicts_are_scored_by_the_check_of_their_attempt() -> None:
    found = sampled()
    # Of problem 1 attempt 0 is wrong and attempt 1 is right.
    accepted_wrong, unreadable = found["s4p1#0.0"], found["s4p1#0.1"]
    assert (accepted_wrong.accepts, accepted_wrong.is_correct) == (True, False)
    assert (unreadable.accepts, unreadable.reward and unreadable.reward.status) == (
        False,
        "unparsable",
    )
    assert found["s4p1#1.0"].is_correct and found["s4p1#1.0"].parent_id == "s4p1#1"
    assert found["s4p1#0"].accepts is None


def test_what_is_not_accepted_is_revised_and_the_attempt_is_the_parent() -> None:
    found = sampled()
    revisions = [one for one in found.values() if one.layer == 3]
    assert {one.group_key for one in revisions} == {
        f"s4p{p}#{a}.1" for p in range(len(PROBLEMS)) for a in range(2)
    }
    one = found["s4p1#0.1.0"]
    assert (one.parent_id, one.group_key) == ("s4p1#0", "s4p1#0.1")
    assert one.is_correct and one.accepts is None
    verdict = found["s4p1#0.1"]
    whole = [*verdict.prompt_token_ids, *verdict.token_ids[:-1]]
    assert one.prompt_token_ids.tolist()[: len(whole)] == whole


def test_rejected_verdicts_may_be_a_few_of_the_problem_s() -> None:
    layer = CorrectLayer.model_validate(
        {"name": "revise", "group_size": 2, "parents": {"type": "rejected", "k": 1}}
    )
    verdicts = [one for one in sampled().values() if one.layer == 2][:4]
    (chosen,) = choose_parents(layer, verdicts, random.Random(0))
    assert not chosen.accepts


def test_one_of_each_takes_a_right_and_a_wrong_attempt_or_none() -> None:
    layer = VerifyLayer.model_validate(
        {"name": "verify", "group_size": 2, "parents": "one_of_each"}
    )
    mixed = [attempt(i, r) for i, r in enumerate([RIGHT, WRONG, TIMEOUT, RIGHT, WRONG])]
    seen = {tuple(ids(choose_parents(layer, mixed, random.Random(seed)))) for seed in range(40)}
    assert seen == {(0, 1), (0, 4), (1, 3), (3, 4)}
    equal = [attempt(i, WRONG) for i in range(3)]
    assert choose_parents(layer, equal, random.Random(0)) == []


def test_the_default_prompt_asks_for_the_recipe_s_phrases() -> None:
    layer = VerifyLayer.model_validate(
        {"name": "verify", "group_size": 2, "verdict": {"right": ["fine"], "wrong": ["broken"]}}
    )
    system = review_messages(layer, "1+1?", "2", "So:")[0]["content"]
    assert "end with: broken" in system and "end with: fine" in system
    assert PromptBuilder(TOKENIZER).stop_of(layer) is None
