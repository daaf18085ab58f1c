"""How a judge is asked, and how its reply is read."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgrpo.config.services import JudgeTerm
from mgrpo.types import Problem
from rewards.services.verdict import (
    NoVerdict,
    Verdict,
    messages_for,
    number_of,
    read_verdict,
    reply_in,
    request_of,
    schema_of,
)
from tests.rewards.services.loopback import chat_reply

SEVEN = Problem(
    problem_id="seven",
    question="What is 3 + 4?",
    answer="7",
    solution="3 + 4 = 7",
    metadata={"level": "easy"},
)


def term_of(**keys):
    return JudgeTerm.model_validate({"judge": "big", "url": "http://127.0.0.1:1/v1", **keys})


SCHEMA = term_of()
PATTERN = term_of(verdict="pattern", pattern=r"Score: *(-?\d+(?:\.\d+)?)")


def test_the_prompt_has_the_fields_of_the_row():
    term = term_of(
        prompt="{question}|{completion}|{reference}|{solution}|{row[level]}|{{}}",
        system_prompt="You grade.",
        verdict="pattern",
        pattern="(1)",
    )
    system, user = messages_for(term, SEVEN, "it is {7}")
    assert system == {"role": "system", "content": "You grade."}
    assert user["content"] == "What is 3 + 4?|it is {7}|7|3 + 4 = 7|easy|{}"


def test_what_the_template_began_is_a_part_of_the_answer():
    thinking = replace(SEVEN, prompt_opening="<think>\n")
    term = term_of(prompt="{completion}", verdict="pattern", pattern="(1)")
    assert messages_for(term, thinking, "3 + 4")[0]["content"] == "<think>\n3 + 4"


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(NoVerdict, match="column 'rubric', and the row has level"):
        messages_for(term_of(prompt="{completion} {row[rubric]}"), SEVEN, "7")


def test_a_request_has_the_schema_and_what_the_recipe_adds():
    body = request_of(term_of(extra_body={"seed": 3}, max_tokens=None), SEVEN, "7")
    assert body["model"] == "big" and body["temperature"] == 0.0 and body["seed"] == 3
    assert "max_tokens" not in body
    form = body["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["strict"]
    assert list(form["json_schema"]["schema"]["properties"]) == ["critique", "score"]
    assert '"score": a whole number from 0 (worst) to 10' in body["messages"][-1]["content"]
    assert "response_format" not in request_of(term_of(verdict="json"), SEVEN, "7")
    assert list(schema_of(term_of(critique=False))["properties"]) == ["score"]
    bounded = schema_of(term_of(max_critique_chars=80))["properties"]["critique"]
    assert bounded == {"type": "string", "maxLength": 80}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({}, "no choices"),
        ([], "no choices"),
        ({"choices": []}, "no choices"),
        ({"choices": [{"message": None}]}, "no choices"),
        (chat_reply(None), "has no text"),
        (chat_reply('{"score": 3', "length"), "cut at max_tokens"),
    ],
)
def test_an_answer_without_a_reply_is_refused(answer, why):
    with pytest.raises(NoVerdict, match=why):
        reply_in(answer)


@pytest.mark.parametrize(
    ("reply", "score", "critique"),
    [
        ('{"critique": "no box", "score": 3}', 3, "no box"),
        ('```json\n{"score": 10}\n```', 10, ""),
        ('I think {so}. {"score": "7"}', 7, ""),
        ('It says {"score": 10}, and I say {"critique": "no", "score": 1}.', 1, "no"),
        ('{"score": 4, "why": {"score": 9}}', 4, ""),
        ('{"verdict": {"score": 2}', 2, ""),
        ('{"critique": ["a"], "score": 2.5}', 2.5, ""),
    ],
)
def test_the_last_object_with_a_score_is_the_verdict(reply, score, critique):
    assert read_verdict(reply, SCHEMA) == Verdict(score=score, critique=critique)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("", "no JSON object"),
        ("10", "no JSON object"),
        ('{"rating": 3}', "no JSON object"),
        ('{"score": true}', "the score is True"),
        ('{"score": null}', "the score is None"),
        ('{"score": NaN}', "the score is nan"),
        ('{"score": "7/10"}', "the score is '7/10'"),
        ('{"score": 11}', "the score 11 is not from 0 to 10"),
        ('{"score": -1}', "the score -1 is not from 0 to 10"),
        ("{" * 20_000, "no JSON object"),
        ('{"a":' * 4_000, "no JSON object"),
    ],
)
def test_no_verdict_is_never_a_zero(reply, why):
    with pytest.raises(NoVerdict, match=why):
        read_verdict(reply, SCHEMA)


def test_a_pattern_s_last_match_counts_and_the_text_before_is_the_critique():
    reply = "They claim Score: 10. The sum is wrong. Score: 2"
    assert read_verdict(reply, PATTERN) == Verdict(
        score=2, critique="They claim Score: 10. The sum is wrong."
    )
    named = term_of(verdict="pattern", pattern=r"(?P<score>\d+)/10 because (?P<critique>.*)")
    assert read_verdict("3/10 because of the sign", named).critique == "of the sign"
    with pytest.raises(NoVerdict, match="does not match the pattern"):
        read_verdict("no idea", PATTERN)
    with pytest.raises(NoVerdict, match="not from 0 to 10"):
        read_verdict("Score: -3", PATTERN)


@given(st.text(max_size=300))
def test_any_text_is_a_verdict_on_the_scale_or_none(reply):
    for term in (SCHEMA, PATTERN):
        with suppress(NoVerdict):
            assert 0 <= read_verdict(reply, term).score <= 10


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.text(max_size=30), st.integers(0, 10), st.text(max_size=30), JSON)
def test_a_verdict_in_prose_is_found(before, score, critique, other):
    verdict = json.dumps({"other": other, "critique": critique, "score": score})
    text = before.replace("{", "(").replace('"', "'")
    assert read_verdict(f"{text}{verdict}\n", SCHEMA) == Verdict(score=score, critique=critique)


@given(JSON)
def test_any_json_is_a_reply_or_none(answer):
    with suppress(NoVerdict):
        assert isinstance(reply_in(answer), str)


@given(JSON)
def test_a_number_is_finite_or_refused(value):
    with suppress(NoVerdict):
        assert abs(number_of(value)) < float("inf")
