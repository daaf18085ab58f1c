from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.templates import CUT_MARK, DEFAULT_QUOTE_TEMPLATE, Asked, PromptBuilder, fill
from mgrpo.config import CorrectLayer, SolveLayer
from mgrpo.config.layers import ReviewChat
from mgrpo.errors import ModelError
from mgrpo.types import Problem
from tests.actors.byte_tokenizer import END, ByteTokenizer

BUILDER = PromptBuilder(ByteTokenizer())
GUIDANCE = "Hold on."


def layer(**keys: object) -> CorrectLayer:
    return CorrectLayer.model_validate({"name": "correct", "group_size": 2, **keys})


def contains(whole: list[int], part: list[int]) -> bool:
    return any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))


def correction(config: CorrectLayer, attempt: list[int], asked: Asked = "1+1?") -> list[int]:
    prompt = BUILDER.solve_prompt(config, asked)
    return BUILDER.correction_prompt(
        config, asked, parent_prompt_ids=prompt, parent_ids=attempt, guidance=GUIDANCE
    )


@given(st.lists(st.integers(0, 255), max_size=40), st.sampled_from(["review_chat", "user_quote"]))
def test_a_correction_prompt_holds_the_attempts_ids_exactly(
    attempt: list[int], layout: str
) -> None:
    # Bytes that are no valid text at all: decoding and encoding them again would change them.
    assert contains(correction(layer(layout=layout), [*attempt, END]), attempt)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_self_continue_extends_the_parents_own_sequence(attempt: list[int]) -> None:
    config = layer(layout="self_continue")
    prompt = BUILDER.solve_prompt(config, "1+1?")
    extended = correction(config, [*attempt, END])
    assert extended[: len(prompt) + len(attempt)] == prompt + attempt
    assert extended[len(prompt) + len(attempt) :] == BUILDER.encode(f"\n{GUIDANCE}")


def test_review_chat_puts_guidance_after_the_attempt_and_opens_a_new_turn() -> None:
    text = ByteTokenizer().decode(correction(layer(system_prompt="Look."), list(b"It is 3.")))
    assert text == (
        "system: Look.<end>\nuser: 1+1?<end>\nassistant: It is 3.\nHold on.<end>\nassistant: "
    )


def test_an_empty_system_prompt_leaves_the_turn_out() -> None:
    assert "system" not in ByteTokenizer().decode(correction(layer(system_prompt=""), list(b"3")))


def test_end_of_turn_tokens_are_dropped_only_at_the_end() -> None:
    assert BUILDER.without_end_of_turn([END, 65, END, 66, END, END]) == [END, 65, END, 66]


def test_long_attempts_keep_their_head_and_tail() -> None:
    quoted = BUILDER.quoted(ReviewChat(max_quote_tokens=5), list(b"abcdefghij"), None)
    assert bytes(quoted) == b"ab" + CUT_MARK.encode() + b"hij"


def test_answer_only_quotes_the_answer() -> None:
    assert bytes(BUILDER.quoted(ReviewChat(quote="answer_only"), list(b"so it is 7"), "7")) == (
        b"\\boxed{7}"
    )


def test_fill_leaves_braces_of_the_values_alone() -> None:
    assert fill("{problem}|{attempt}", problem="{attempt}", attempt="{x}") == "{attempt}|{x}"


def test_a_template_that_refuses_the_turns_says_what_to_change() -> None:
    class Strict(ByteTokenizer):
        def apply_chat_template(self, conversation: object, **kwargs: object) -> str:  # type: ignore[override]
            raise ValueError("roles must alternate")

    with pytest.raises(ModelError, match="user_quote"):
        PromptBuilder(Strict()).solve_prompt(layer(), "1+1?")


# --- problems with turns of their own ---

EARLIER = [
    {"role": "system", "content": "Add."},
    {"role": "user", "content": "1+2?"},
    {"role": "assistant", "content": "3"},
]
BEFORE = "system: Add.<end>\nuser: 1+2?<end>\nassistant: 3<end>\n"


def problem(earlier: list[dict[str, str]]) -> Problem:
    return Problem(problem_id="p", question="3+4?", answer="7", earlier_turns=earlier)


def text_of(ids: list[int]) -> str:
    return ByteTokenizer().decode(ids)


def test_a_problem_s_own_turns_stand_in_the_prompts_of_both_layers() -> None:
    solve = SolveLayer(
        name="solve", group_size=2, system_prompt="Solve.", user_template="Q {problem}"
    )
    asked = BUILDER.solve_prompt(solve, problem(EARLIER))
    assert text_of(asked) == f"{BEFORE}user: Q 3+4?<end>\nassistant: "
    prompts = {
        name: text_of(
            BUILDER.correction_prompt(
                layer(layout=name),
                problem(EARLIER),
                parent_prompt_ids=asked,
                parent_ids=[*b"It is 8.", END],
                guidance=GUIDANCE,
            )
        )
        for name in ("review_chat", "user_quote", "self_continue")
    }
    quote = DEFAULT_QUOTE_TEMPLATE.format(problem="3+4?", attempt="It is 8.", guidance=GUIDANCE)
    review = f"user: 3+4?<end>\nassistant: It is 8.\n{GUIDANCE}<end>\nassistant: "
    assert prompts["review_chat"] == BEFORE + review
    assert prompts["user_quote"] == f"{BEFORE}user: {quote}<end>\nassistant: "
    assert prompts["self_continue"] == f"{text_of(asked)}It is 8.\n{GUIDANCE}"


def test_a_layer_s_system_turn_is_for_problems_without_one() -> None:
    solve = SolveLayer(name="solve", group_size=2, system_prompt="Solve.")
    asked = text_of(BUILDER.solve_prompt(solve, problem(EARLIER[1:])))
    assert asked.startswith("system: Solve.<end>\nuser: 1+2?<end>\nassistant: 3<end>\nuser: 3+4?")
    review = correction(layer(system_prompt="Look."), list(b"8"), problem(EARLIER[1:]))
    assert text_of(review).startswith("system: Look.<end>\nuser: 1+2?<end>\n")
