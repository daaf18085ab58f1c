"""From columns to a question and its reference answer: chats, nested columns, unfit rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgrpo.config import RowsSource
from mgrpo.data.formats.answers import answer_fault, final_answer, solution_before
from mgrpo.data.formats.files import Row
from mgrpo.data.formats.rows import LoadedData, problems_of
from mgrpo.data.problems import load_problems
from mgrpo.errors import DataError
from rewards.math_answer import math_answer

USER = {"role": "user", "content": "What is 3 + 4?"}
SYSTEM = {"role": "system", "content": "Answer in a box."}
SAYS_NOTHING = [
    *("", " ", ".", ",", "...", "?", "$", "$$", "{}", "-", "\u2014", "'", '""', "\u200b"),
    *("\\text{}", "\\boxed{}", "\\mathrm{ }", "\\left\\right", "\\quad"),
    *("#### ", "so\n####", "work ####  ", "\\(\\)", "\\[ \\]", "The answer is \\boxed{}."),
    *("It is \\boxed{\\text{ }}", "#### \\boxed{.}"),
]
SAYS_SOMETHING = [
    *("0", "1e5", "<", ">", "+", "/", "[]", "()", "\\{\\}", "50\\%", "\u2205", "\u03c0"),
    *("\\infty", "\\sqrt{2}", "\\pi", "\\text{east}"),
    *("No", "None", "a", "infinite", "\U0001f600", "\u7b54"),
]
SOUND = {"question": "What is 1 + 1?", "answer": "2"}


def load(*values: Any, **settings: Any) -> LoadedData:
    rows = [
        Row(value=value, where=f"line {number}", number=number, stem="rows")
        for number, value in enumerate(values, start=1)
    ]
    return problems_of(rows, RowsSource(path="rows.jsonl", **settings), [])


# --- chats and nested columns ---


def test_rows_of_verl_are_read(tmp_path: Path):
    row = {"prompt": [USER], "reward_model": {"style": "rule", "ground_truth": "7"}}
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row))
    source = RowsSource(
        path=str(file), question_field="prompt", answer_field="reward_model.ground_truth"
    )
    (problem,) = load_problems(source).problems
    assert (problem.question, problem.answer) == ("What is 3 + 4?", "7")


@pytest.mark.parametrize(
    "chat",
    [
        [USER],
        [{"from": "human", "value": "What is 3 + 4?"}],
        [{"role": "user", "content": [{"type": "text", "text": "What is "}, "3 + 4?"]}],
        json.dumps([USER]),
        json.dumps([USER], indent=1),
        str([USER]),  # as pandas writes it into a CSV file
    ],
)
def test_a_chat_of_one_turn_is_its_question(chat: object):
    (problem,) = load({"question": chat, "answer": 7}).problems
    assert problem.question == "What is 3 + 4?"


@pytest.mark.parametrize("question", ["[{}] is what?", "[{1, 2}, {3}]: how many?", "[{'a': 1}]"])
def test_a_question_that_begins_like_a_chat_is_text(question: str):
    assert load({"question": question, "answer": 1}).problems[0].question == question


@pytest.mark.parametrize("earlier", [[SYSTEM], [USER, {"role": "assistant", "content": "7"}]])
def test_turns_before_the_question_are_kept_unless_they_are_to_be_ignored(earlier: list[object]):
    rows = [{"question": [*earlier, USER], "answer": 7}, SOUND]
    asked = [USER["content"], "What is 1 + 1?"]
    for ignored, turns in ((False, [earlier, []]), (True, [[], []])):
        problems = load(*rows, ignore_earlier_turns=ignored).problems
        assert [problem.question for problem in problems] == asked
        assert [problem.earlier_turns for problem in problems] == turns


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        ([USER, {"role": "assistant", "content": "7"}], "last turn is of the role 'assistant'"),
        ([{"role": "user", "content": [{"type": "image", "image": "x.png"}]}], "not text"),
        ([{"role": "user", "content": " "}], "no question"),
        ([], "question is a list, not text or a number"),
        (["text"], "question is a list, not text or a number"),
    ],
)
def test_a_chat_that_is_no_question_is_counted_with_the_reason(chat: object, reason: str):
    data = load({"question": chat, "answer": 7}, SOUND)
    assert len(data.problems) == 1
    assert reason in data.describe_dropped()


def test_a_column_with_a_dot_in_its_name_comes_before_a_nested_one():
    row = {"question": "q", "a.b": "1", "a": {"b": "2", "c": ["3", "4"]}}
    assert load(row, answer_field="a.b").problems[0].answer == "1"
    assert load(row, answer_field="a.c.1").problems[0].answer == "4"


def test_a_wrong_nested_column_names_those_that_exist():
    row = {"prompt": "q", "reward_model": {"style": "rule", "ground_truth": "7"}}
    with pytest.raises(DataError, match=r"Did you mean reward_model\.ground_truth\?.*prompt, rew"):
        load(row, question_field="prompt", answer_field="reward_model.ground_truht")
    with pytest.raises(DataError, match=r"named with dots, reward_model\.ground_truth"):
        load(row, question_field="prompt", answer_field="reward_model")


def test_metadata_solutions_and_domains_may_be_nested_too():
    row = {**SOUND, "extra": {"kind": "sums", "steps": "one by one", "level": 2}}
    (problem,) = load(
        row,
        domain_field="extra.kind",
        solution_field="extra.steps",
        metadata_fields=["extra.level"],
    ).problems
    assert (problem.domain, problem.solution) == ("sums", "one by one")
    assert problem.metadata == {"extra.level": 2}


# --- rows that no tokenizer takes ---


@pytest.mark.parametrize("field", ["question", "answer", "solution", "domain"])
@pytest.mark.parametrize(
    ("text", "reason"), [("half \ud83d an emoji 1", "lone surrogate"), ("a\0b 1", "NUL")]
)
def test_text_that_cannot_be_encoded_costs_its_row(field: str, text: str, reason: str):
    row = {**SOUND, "solution": "", "domain": "sums", field: text}
    settings = {"solution_field": "solution", "domain_field": "domain"}
    data = load({**SOUND, "solution": "", "domain": "d"}, row, **settings)
    assert len(data.problems) == 1
    assert reason in data.describe_dropped() and "line 2" in data.describe_dropped()


@given(st.text(st.characters(), max_size=8), st.text(st.characters(), max_size=8))
def test_any_row_is_a_sound_problem_or_counted(question: str, answer: str):
    data = load(SOUND, {"question": question, "answer": answer})
    assert data.num_rows == 2
    for problem in data.problems:
        assert (problem.question + problem.answer).encode()
        assert problem.question and not answer_fault(problem.answer)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda part: (
        st.lists(part, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "text", "a"]), part)
    ),
    max_leaves=6,
)


@given(json_values, json_values, json_values, st.booleans())
def test_any_json_in_any_column_is_read_or_counted(question, answer, other, ignore: bool):
    row = {"question": question, "answer": answer, "d": other, "s": other, "m": other}
    data = load(
        {**SOUND, "d": "d", "s": "s", "m": 1},
        row,
        question,  # no row at all, as a rule
        domain_field="d",
        solution_field="s",
        metadata_fields=["m"],
        ignore_earlier_turns=ignore,
    )
    assert data.num_rows == 3
    assert all(type(problem.question) is type(problem.answer) is str for problem in data.problems)


# --- reference answers ---


@pytest.mark.parametrize("answer", SAYS_NOTHING)
def test_an_answer_that_says_nothing_is_no_answer(answer: str):
    data = load(SOUND, {"question": "q", "answer": answer})
    assert dict(data.num_dropped) == {"no answer": 1}


@pytest.mark.parametrize(
    "answer",
    [
        *("nan", "NaN", "inf", "-inf", "Infinity", "1e400", "$-1e999$", "\u2212inf"),
        *("\\boxed{nan}", "so \\boxed{\\text{inf}}", float("nan"), float("inf")),
    ],
)
def test_an_answer_that_is_no_number_or_an_endless_one_is_refused(answer: object):
    data = load(SOUND, {"question": "q", "answer": answer})
    assert dict(data.num_dropped) == {"answer is not finite": 1}


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e400", "-1E+999"])
def test_the_same_written_as_json_numbers(tmp_path: Path, literal: str):
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{json.dumps(SOUND)}\n{{"question": "q", "answer": {literal}}}\n')
    assert dict(load_problems(RowsSource(path=str(file))).num_dropped) == {
        "answer is not finite": 1
    }


@pytest.mark.parametrize("answer", SAYS_SOMETHING)
def test_an_answer_that_says_something_is_kept(answer: str):
    assert answer_fault(answer) == ""
    assert load({"question": "q", "answer": answer}).problems[0].answer == answer


def test_a_gap_of_a_table_is_no_question():
    assert dict(load(SOUND, {"question": float("nan"), "answer": 1}).num_dropped) == {
        "no question": 1
    }


@pytest.mark.parametrize("box", [".", ",", "$", "\\text{}", " ", "\\,", "nan", "inf"])
@given(reference=st.text(" .,$-'?{}", max_size=4) | st.sampled_from(["\\text{}", "nan", "inf"]))
def test_no_reference_is_kept_that_a_box_without_an_answer_earns(box: str, reference: str):
    kept = load(SOUND, {"question": "q", "answer": reference}).problems[1:]
    assert not any(math_answer(f"\\boxed{{{box}}}", problem).correct for problem in kept)


@pytest.mark.parametrize(
    ("text", "answer", "solution"),
    [
        ("48 / 2 = 24\n#### 72", "72", "48 / 2 = 24"),
        ("48 / 2 = 24 #### 72\n", "72", "48 / 2 = 24"),
        ("72", "72", ""),
        ("#### 5\n#### 6", "6", "#### 5"),
        ("#### A heading\nand text", "#### A heading\nand text", ""),  # Markdown, and no mark
        ("##### 5", "##### 5", ""),
    ],
)
def test_the_final_answer_is_what_the_last_line_says_behind_the_mark(text, answer, solution):
    assert (final_answer(text), solution_before(text)) == (answer, solution)
