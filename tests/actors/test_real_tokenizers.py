"""Correction prompts with the shipped tokenizers: the attempt's ids go in and stay as they are."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.templates import PromptBuilder
from mgrpo.config import GUIDANCE_PHRASES, CorrectLayer, SolveLayer

NAMES = ["default", "smollm2"]
LAYOUTS = ["review_chat", "user_quote", "self_continue"]


@cache
def tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    if name == "default":
        from mgrpo.models.catalog import resolve_model

        return AutoTokenizer.from_pretrained(resolve_model(name))
    from mgrpo.models.smollm2 import gguf_file  # the file holds the tokenizer as well

    file = gguf_file()
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=40)
@given(data=st.data())
def test_the_attempts_ids_stand_in_the_correction_unchanged(
    name: str, layout: str, data: st.DataObject
) -> None:
    policy = tokenizer(name)
    special = set(policy.all_special_ids)
    plain_ids = st.integers(0, len(policy) - 1).filter(lambda token: token not in special)
    attempt = data.draw(st.lists(plain_ids, min_size=1, max_size=60))
    question = data.draw(st.text(max_size=80))
    guidance = data.draw(st.sampled_from(GUIDANCE_PHRASES))
    layer = CorrectLayer(name="correct", group_size=2, layout=layout)
    builder = PromptBuilder(policy)
    solve = builder.solve_prompt(SolveLayer(name="solve", group_size=2), question)
    prompt = builder.correction_prompt(
        layer,
        question,
        parent_prompt_ids=solve,
        parent_ids=[*attempt, policy.eos_token_id],
        guidance=guidance,
    )
    if layout == "self_continue":
        assert prompt[: len(solve) + len(attempt)] == solve + attempt
    else:
        size = len(attempt)
        assert any(prompt[i : i + size] == attempt for i in range(len(prompt) - size + 1))


@pytest.mark.parametrize("name", NAMES)
def test_random_ids_would_not_survive_being_decoded_and_encoded(name: str) -> None:
    """Why ids are never made from text: the round trip gives other tokens."""
    policy = tokenizer(name)
    ids = [token for letter in "legs" for token in policy.encode(letter, add_special_tokens=False)]
    assert policy.decode(ids) == "legs"
    assert policy.encode("legs", add_special_tokens=False) != ids
