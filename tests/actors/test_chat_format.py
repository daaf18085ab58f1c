"""What chat templates do, on the shapes that families of models ship."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from actors.chat_format import read_chat_format
from actors.templates import PromptBuilder
from mgrpo.config import CorrectLayer, SolveLayer
from mgrpo.errors import ModelError
from mgrpo.models.catalog import SHIPPED_DEFAULT_DIR

IM_END = 2
TURN = "'<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n'"
HEAD = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
OPENED = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
CHATML = "{% for m in messages %}{{ " + TURN + " }}{% endfor %}" + HEAD
TEMPLATES = {
    "chatml": CHATML,
    # As DeepSeek-R1: opens the thought, and leaves it out of earlier turns.
    "opens": "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|im_start|>assistant\\n'"
    " + m['content'].split('</think>')[-1] + '<|im_end|>\\n' }}{% else %}{{ "
    + TURN
    + " }}{% endif %}{% endfor %}"
    + OPENED,
    # As Qwen3: an empty thought in the last turn, or in the prompt where thinking is off.
    "empty": "{% for m in messages %}{% if m['role'] == 'assistant' and loop.last %}"
    "{{ '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' + m['content'].lstrip('\\n') + "
    "'<|im_end|>\\n' }}{% else %}{{ " + TURN + " }}{% endif %}{% endfor %}" + HEAD + "{% if "
    "add_generation_prompt and enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}",
    # As Mistral: no header, and no turn that is opened for the policy.
    "bare": "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + "
    "' [/INST]' }}{% elif m['role'] == 'system' %}{{ raise_exception('no system turn') }}"
    "{% else %}{{ ' ' + m['content'] | trim + '<|im_end|>' }}{% endif %}{% endfor %}",
    # As Gemma: other names of roles, contents trimmed.
    "trims": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] | trim + "
    "'<|im_end|>\\n' }}{% endfor %}" + HEAD,
    # Opens the policy's turn whether asked to or not.
    "always": "{% for m in messages %}{{ " + TURN + " }}{% endfor %}"
    "{{ '<|im_start|>assistant\\n' }}",
    # As GLM: nothing ends a turn but the next one's header.
    "endless": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] }}"
    "{% endfor %}" + HEAD,
}


@cache
def builder(template: str, **template_kwargs: Any) -> PromptBuilder:
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED_DEFAULT_DIR)
    tokenizer.chat_template = template
    return PromptBuilder(tokenizer, template_kwargs)


def review_layer(layout: str, system: str | None = "", **keys: Any) -> CorrectLayer:
    """self_continue opens no turn, so it has no system prompt."""
    return CorrectLayer.model_validate(
        {
            "name": "correct",
            "group_size": 2,
            "system_prompt": None if layout == "self_continue" else system,
            "layout": {"type": layout, **keys},
        }
    )


def correction(of: PromptBuilder, layout: str, attempt: list[int], **keys: Any) -> str:
    system = keys.pop("system", "")
    layer = review_layer(layout, system, **keys)
    asked = SolveLayer(name="solve", group_size=2, system_prompt=system)
    ids = of.correction_prompt(
        layer,
        "3 + 4?",
        parent_prompt_ids=of.solve_prompt(asked, "3 + 4?"),
        parent_ids=[*attempt, IM_END],
        guidance="Wait.",
        parent_answer="7",
    )
    return str(of.tokenizer.decode(ids, skip_special_tokens=False))


@pytest.mark.parametrize(
    ("name", "opening"),
    [(name, "<think>\n" if name == "opens" else "") for name in TEMPLATES],
)
def test_the_opening_is_what_a_prompt_has_written_of_the_answer(name: str, opening: str) -> None:
    assert builder(TEMPLATES[name]).chat.opening == opening


def test_an_empty_thought_in_the_prompt_is_an_opening_too() -> None:
    assert builder(TEMPLATES["empty"], enable_thinking=True).chat.opening == ""
    silent = builder(TEMPLATES["empty"], enable_thinking=False)
    assert silent.chat.opening == "<think>\n\n</think>\n\n"


def test_other_tags_than_think_count_as_well() -> None:
    assert builder(CHATML.replace(HEAD, OPENED.replace("think", "reasoning"))).chat.opening == (
        "<reasoning>\n"
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_token_that_ends_a_turn_is_read_from_the_template(name: str) -> None:
    expected = 1 if name == "endless" else IM_END
    assert builder(TEMPLATES[name]).chat.end_of_turn_id == expected


def test_what_ends_a_whole_answer_goes_before_what_ends_a_turn() -> None:
    template = CHATML.replace("'<|im_end|>\\n'", "('<|pad|>' if loop.last else '<|im_end|>\\n')")
    assert builder(template).chat.end_of_turn_id == 0


def test_a_template_that_needs_a_system_turn_is_read_with_one() -> None:
    refusal = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('no') }}{% endif %}"
    of = builder(refusal + TEMPLATES["opens"])
    assert (of.chat.opening, of.chat.end_of_turn_id) == ("<think>\n", IM_END)
    assert of.solve_prompt(SolveLayer(name="solve", group_size=2), "3 + 4?")
    assert "<think>\n7\nWait." in correction(of, "review_chat", of.encode("7"), system="Look.")


def test_a_turn_that_ends_in_plain_text_has_no_end_token() -> None:
    chat = builder(CHATML.replace("<|im_end|>", "\\n###")).chat
    assert chat.end_of_turn_id is None
    assert chat.end_of_turn == "\n###\n"


THOUGHT = "3+4 is 7\n</think>\n\n\\boxed{7}"


def test_a_quoted_turn_begins_as_its_policy_saw_it() -> None:
    of = builder(TEMPLATES["opens"])
    attempt = of.encode(THOUGHT)
    opened = f"<|im_start|>user\n3 + 4?<|im_end|>\n<|im_start|>assistant\n<think>\n{THOUGHT}\nWait."
    assert correction(of, "review_chat", attempt) == (
        f"{opened}<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
    assert correction(of, "self_continue", attempt) == opened
    assert f"An earlier attempt:\n<think>\n{THOUGHT}\n\nWait." in correction(
        of, "user_quote", attempt
    )


def test_an_answer_that_is_quoted_alone_stands_in_no_open_thought() -> None:
    of = builder(TEMPLATES["opens"])
    text = correction(of, "review_chat", of.encode(THOUGHT), quote="answer_only")
    assert "<|im_start|>assistant\n\\boxed{7}\nWait.<|im_end|>" in text


def test_a_template_that_puts_an_empty_thought_before_the_last_turn_does_not_before_a_quote() -> (
    None
):
    of = builder(TEMPLATES["empty"])
    own = of.encode("<think>\nsum\n</think>\n\n\\boxed{7}")
    text = correction(of, "review_chat", own)
    assert "assistant\n<think>\nsum\n</think>\n\n\\boxed{7}\nWait.<|im_end|>" in text
    assert "<think>\n\n</think>" not in text


def test_without_thinking_quoted_turns_and_prompts_hold_the_same_empty_thought() -> None:
    of = builder(TEMPLATES["empty"], enable_thinking=False)
    text = correction(of, "review_chat", of.encode("\\boxed{7}"))
    assert text.count("<|im_start|>assistant\n<think>\n\n</think>\n\n") == 2
    assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "bare"])
@pytest.mark.parametrize("layout", ["review_chat", "user_quote", "self_continue"])
@settings(max_examples=15)
@given(data=st.data())
def test_a_quoted_attempt_follows_the_very_tokens_that_its_policy_read(
    name: str, layout: str, data: st.DataObject
) -> None:
    of = builder(TEMPLATES[name])
    attempt = data.draw(st.lists(st.integers(3, 500), min_size=1, max_size=30))
    layer = review_layer(layout)
    asked = of.solve_prompt(SolveLayer(name="solve", group_size=2, system_prompt=""), "3 + 4?")
    ids = of.correction_prompt(
        layer,
        "3 + 4?",
        parent_prompt_ids=asked,
        parent_ids=[*attempt, IM_END],
        guidance="Wait.",
    )
    wanted = [*of.encode(of.chat.opening), *attempt]
    if layout != "user_quote":
        wanted = [*asked, *attempt]
    assert any(ids[i : i + len(wanted)] == wanted for i in range(len(ids)))


def test_corrections_are_refused_where_no_second_turn_can_be_opened() -> None:
    of = builder(TEMPLATES["bare"])
    with pytest.raises(ModelError, match="user_quote"):
        correction(of, "review_chat", of.encode("7"))
    assert correction(of, "user_quote", of.encode("7")).endswith("Wait. [/INST]")


@settings(max_examples=60)
@given(st.text(max_size=60))
def test_every_question_is_in_its_prompt(question: str) -> None:
    for name, template in TEMPLATES.items():
        layer = SolveLayer(name="solve", group_size=2, system_prompt="")
        ids = builder(template).solve_prompt(layer, question)
        text = builder(template).tokenizer.decode(ids, skip_special_tokens=False)
        assert question.strip() in text, name


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ '<|im_start|>user\\n<|im_end|>\\n' }}" + HEAD, "drops or changes the question"),
        (CHATML.replace("m['content']", "m['content'][:10]"), "drops or changes the question"),
        (CHATML.replace("m['content']", "m['content'] | upper"), "drops or changes the question"),
        (CHATML.replace(HEAD, ""), "no generation prompt"),
        (
            "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}",
            "no generation prompt",
        ),
        ("{{ raise_exception('never') }}", "never"),
        ("{% for m in messages %}", "cannot render"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(template: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        read_chat_format(builder(template).tokenizer, {})


def test_a_template_for_lists_of_parts_is_refused_and_told_apart() -> None:
    parts = "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}"
    template = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}" + parts
    template += "{{ '<|im_end|>\\n' }}{% endfor %}" + HEAD
    with pytest.raises(ModelError, match="list of parts"):
        read_chat_format(builder(template).tokenizer, {})


def test_a_lost_system_turn_is_refused_with_what_to_set() -> None:
    template = CHATML.replace(
        "{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}"
    )
    of = builder(template)
    solve = SolveLayer(name="solve", group_size=2, system_prompt="Be brief.")
    with pytest.raises(ModelError, match=r"drops or changes the system turn.*system_prompt"):
        of.solve_prompt(solve, "3 + 4?")
    assert of.solve_prompt(solve.model_copy(update={"system_prompt": ""}), "3 + 4?")
