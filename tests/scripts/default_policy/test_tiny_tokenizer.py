import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from actors.templates import PromptBuilder
from mgrpo.config import CorrectLayer, SolveLayer
from mgrpo.config.guidance import GUIDANCE_PHRASES
from scripts.default_policy.tiny_tokenizer import (
    FIXED_SENTENCES,
    TURN_END,
    VOCAB_SIZE,
    train_tokenizer,
)

TEXTS = ["Step by step: 23+45: 60+8=68.\n\\boxed{68}", "3 ants, 1 snake", "user\nassistant\n"] * 3
TOKENIZER = train_tokenizer(TEXTS)
WITHOUT_SPECIAL_TOKENS = st.text().filter(lambda text: "<|" not in text)


def encode(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_encoding_and_decoding(text):
    assert TOKENIZER.decode(encode(text)) == text


@given(st.integers(min_value=0, max_value=10**12))
def test_every_digit_is_one_token(number):
    assert len(encode(str(number))) == len(str(number))


@pytest.mark.parametrize("sentence", FIXED_SENTENCES)
def test_sentences_that_prompts_repeat_are_one_token_and_decode_to_themselves(sentence):
    ids = encode(sentence)
    assert len(ids) == 1
    assert TOKENIZER.decode(ids) == sentence


def test_training_is_repeatable():
    assert train_tokenizer(TEXTS).get_vocab() == TOKENIZER.get_vocab()
    assert len(TOKENIZER) <= VOCAB_SIZE


def test_a_saved_tokenizer_loads_with_its_template_and_special_tokens(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.chat_template == TOKENIZER.chat_template
    assert loaded.eos_token == TURN_END
    assert loaded.eos_token_id in loaded.all_special_ids
    assert loaded.encode("1+2 ä", add_special_tokens=False) == encode("1+2 ä")


def test_turns_are_rendered_verbatim_with_two_assistant_turns_in_a_row():
    turns = [
        {"role": "user", "content": " 1+1? "},
        {"role": "assistant", "content": "2\n"},
        {"role": "assistant", "content": "{{3}}"},
    ]
    text = TOKENIZER.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>user\n 1+1? <|im_end|>\n"
        "<|im_start|>assistant\n2\n<|im_end|>\n"
        "<|im_start|>assistant\n{{3}}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_system_turn_comes_first_where_there_is_one():
    builder = PromptBuilder(TOKENIZER)
    layer = SolveLayer(name="solve", group_size=2, system_prompt="Be brief.")
    text = TOKENIZER.decode(builder.solve_prompt(layer, "1+1?"))
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1?")


@settings(deadline=None)
@given(
    question=WITHOUT_SPECIAL_TOKENS,
    attempt_ids=st.lists(st.integers(min_value=3, max_value=len(TOKENIZER) - 1), min_size=1),
    guidance=st.sampled_from(GUIDANCE_PHRASES),
    layout=st.sampled_from(["review_chat", "self_continue"]),
)
def test_an_attempts_own_tokens_stand_inside_the_correction_prompt(
    question, attempt_ids, guidance, layout
):
    builder = PromptBuilder(TOKENIZER)
    solve = SolveLayer(name="solve", group_size=2, system_prompt="")
    correct = CorrectLayer(name="correct", group_size=2, layout=layout)
    solve_ids = builder.solve_prompt(solve, question)
    prompt_ids = builder.correction_prompt(
        correct,
        question,
        parent_prompt_ids=solve_ids,
        parent_ids=[*attempt_ids, TOKENIZER.eos_token_id],
        guidance=guidance,
    )
    tail_text = f"\n{guidance}"
    if layout == "review_chat":
        tail_text += "<|im_end|>\n<|im_start|>assistant\n"
    tail = encode(tail_text)
    end = len(prompt_ids) - len(tail)
    assert prompt_ids[end:] == tail
    assert prompt_ids[end - len(attempt_ids) : end] == attempt_ids
