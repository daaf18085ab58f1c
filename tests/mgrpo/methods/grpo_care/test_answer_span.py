import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from mgrpo.methods.grpo_care.answer_span import answer_place, overlapping_tokens
from mgrpo.types import Reward
from tests.actors.plugins.scripted_rollout import TOKENIZER, plugin
from tests.learner.builders import completion


def answer_in(text: str, answer: str | None, **settings: Any) -> str | None:
    """What is marked of a text, of which the check read `answer`."""
    one = dataclasses.replace(
        completion("q/1", None, token_ids=TOKENIZER.encode(text), text=text),
        reward=Reward(value=1.0, correct=True, extracted_answer=answer),
    )
    tools: Any = SimpleNamespace(builder=SimpleNamespace(decode=TOKENIZER.decode))
    spans = plugin("answer_span", **settings).annotate(tools, one).spans
    if not spans:
        return None
    ((start, end),) = spans[settings.get("span", "answer")]
    return TOKENIZER.decode(one.token_ids[start:end])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("7 legs: \\boxed{7} of 17", (15, 16)), ("7 or 17", (6, 7)), ("\\boxed{ 7}", (8, 9))],
)
def test_the_answer_stands_behind_the_last_marker_or_last_of_all(
    text: str, expected: tuple[int, int]
) -> None:
    assert answer_place(text, "7", "\\boxed{") == expected


def test_without_a_marker_the_last_place_counts() -> None:
    assert answer_place("\\boxed{7} of 7", "7", None) == (13, 14)
    assert answer_place("eight", "7", None) is None


def test_the_tokens_of_the_answer_are_marked() -> None:
    assert answer_in("12 + 30 = \\boxed{42}", "42") == "42"
    assert answer_in("<answer>42</answer>", "42", marker="<answer>", span="last") == "42"


@pytest.mark.parametrize("answer", [None, "", "8"])
def test_nothing_is_marked_where_no_answer_was_read_or_it_is_not_there(answer: str | None) -> None:
    assert answer_in("\\boxed{7}", answer) is None


def test_a_token_that_only_begins_before_the_answer_belongs_to_it() -> None:
    pieces = ["\\boxed", "{4", "2", "}"]

    def decode(token_ids: list[int]) -> str:
        return "".join(pieces[one] for one in token_ids)

    assert overlapping_tokens(decode, [0, 1, 2, 3], (7, 9)) == (1, 3)
    assert overlapping_tokens(decode, [0, 1, 2, 3], (8, 9)) == (2, 3)
