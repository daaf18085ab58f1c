"""Places in the text and the tokens that lie there."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.spans import section, split_steps, token_ranges

END = 256


def decode_bytes(ids: list[int]) -> str:
    """Each token is a byte; the end of sequence decodes to nothing."""
    return bytes(token for token in ids if token != END).decode(errors="replace")


def decode_byte_by_byte(ids: list[int]) -> str:
    """As byte-fallback tokenizers do: each byte of a cut sign becomes a U+FFFD of its own."""
    kept = bytes(token for token in ids if token != END)
    whole = kept.decode(errors="ignore")
    return whole + "\ufffd" * (len(kept) - len(whole.encode()))


def pieces_decoder(pieces: list[bytes]):
    """Token i is pieces[i]."""
    return lambda ids: b"".join(pieces[token] for token in ids).decode(errors="replace")


@cache
def shipped_tokenizer() -> Any:
    from transformers import AutoTokenizer

    from mgrpo.models.catalog import resolve_model

    return AutoTokenizer.from_pretrained(resolve_model("default"))


# --- token_ranges ---


def test_ranges_of_words_are_the_tokens_that_begin_in_them():
    # tokens: 0 "ab" | 1 "c d" | 2 "ef" | 3 "" (end of sequence); text "abc def"
    decode = pieces_decoder([b"ab", b"c d", b"ef", b""])
    # "abc" begins tokens 0 and 1; " " and "d" are inside token 1, so " def" has token 2 alone,
    # and the end of sequence.
    assert token_ranges(decode, [0, 1, 2, 3], [(0, 3), (3, 7)]) == [(0, 2), (2, 4)]


def test_a_range_inside_one_token_is_empty():
    decode = pieces_decoder([b"ab", b"c d", b"ef"])
    assert token_ranges(decode, [0, 1, 2], [(0, 3), (3, 4), (4, 7)]) == [(0, 2), (2, 2), (2, 3)]


def test_a_sign_spread_over_tokens_belongs_whole_to_its_range():
    ids = [*"aé€😀b".encode(), END]  # 1 + 2 + 3 + 4 + 1 bytes
    expected = [(0, 3), (3, 6), (6, 10), (10, 12)]
    ranges = [(0, 2), (2, 3), (3, 4), (4, 5)]
    for decode in (decode_bytes, decode_byte_by_byte):
        assert token_ranges(decode, ids, ranges) == expected


def test_a_replacement_sign_that_the_text_itself_holds_counts_as_a_character():
    ids = [ord("a"), 0xFF, ord("b"), ord("c")]  # 0xFF is no beginning of any sign
    assert decode_bytes(ids) == "a\ufffdbc"
    assert token_ranges(decode_bytes, ids, [(0, 2), (2, 4)]) == [(0, 2), (2, 4)]


def test_tokens_of_a_sign_that_was_cut_off_belong_to_the_last_range():
    ids = [*b"ab", *"😀".encode()[:3]]
    assert token_ranges(decode_bytes, ids, [(0, 1), (1, 3)]) == [(0, 1), (1, 5)]


def test_trailing_tokens_do_not_belong_to_a_range_that_ends_before_the_text_does():
    ids = [*b"abcd", END, END]
    assert token_ranges(decode_bytes, ids, [(1, 3)]) == [(1, 3)]
    assert token_ranges(decode_bytes, ids, [(1, 4)]) == [(1, 6)]


def test_a_token_without_text_in_the_middle_goes_with_what_follows():
    ids = [*b"ab", END, *b"cd"]
    assert token_ranges(decode_bytes, ids, [(0, 2), (2, 4)]) == [(0, 2), (2, 5)]


def test_a_completion_of_nothing_but_its_end_is_one_range():
    assert token_ranges(decode_bytes, [END], split_steps("", "newline")) == [(0, 1)]


def test_an_empty_range_at_the_end_gets_no_tokens():
    assert token_ranges(decode_bytes, [*b"ab", END], [(0, 2), (2, 2)]) == [(0, 3), (3, 3)]


@pytest.mark.parametrize("span", [(0, 4), (-1, 2), (2, 1)])
def test_a_range_outside_the_text_is_refused(span):
    with pytest.raises(ValueError, match="of a text that has 3"):
        token_ranges(decode_bytes, [*b"abc"], [span])


def test_a_boundary_costs_the_logarithm_of_the_tokens():
    calls = []

    def decode(ids: list[int]) -> str:
        calls.append(len(ids))
        return decode_bytes(ids)

    token_ranges(decode, [*b"x" * 1000], [(0, 333), (333, 1000)])
    assert len(calls) <= 1 + 2 * 10  # the whole text, and log2(1000) for 0 and for 333


@given(text=st.text(), cuts=st.lists(st.floats(0, 1), max_size=4), end=st.integers(0, 2))
def test_ranges_that_tile_the_text_tile_the_tokens(text: str, cuts: list[float], end: int) -> None:
    tokenizer = shipped_tokenizer()
    ids = tokenizer.encode(text, add_special_tokens=False) + [tokenizer.eos_token_id] * end

    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=True)

    whole = decode(ids)
    places = [0, *sorted(round(cut * len(whole)) for cut in cuts), len(whole)]
    spans = list(pairwise(places))
    found = token_ranges(decode, ids, spans)
    for token in range(len(ids)):  # by the definition, token by token
        before = decode(ids[:token])
        place = next((i for i in range(len(before)) if before[i] != whole[i]), len(before))
        holders = [i for i, (start, stop) in enumerate(spans) if start <= place < stop]
        owner = holders[0] if holders else None
        owners = [i for i, (first, last) in enumerate(found) if first <= token < last]
        assert owner is None or owners == [owner]
    if whole:
        assert found[0][0] == 0 and found[-1][1] == len(ids)
        assert all(left[1] == right[0] for left, right in pairwise(found))


def test_steps_of_a_shipped_models_completion_in_tokens():
    tokenizer = shipped_tokenizer()
    text = "Easy: 12+24=36.\n\\boxed{36}"
    ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]

    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=True)

    first, second = token_ranges(decode, ids, split_steps(text, "newline"))
    assert decode(ids[slice(*first)]) == "Easy: 12+24=36.\n"
    assert decode(ids[slice(*second)]) == "\\boxed{36}"
    assert second[1] == len(ids)  # the end of sequence is the last step's


# --- split_steps ---


def steps(text: str, how: str) -> list[str]:
    spans = split_steps(text, how)
    assert "".join(text[start:end] for start, end in spans) == text
    return [text[start:end] for start, end in spans]


def test_a_step_per_line_keeps_its_indentation_and_its_line_break():
    assert steps("a\n  b\nc", "newline") == ["a\n", "  b\n", "c"]


def test_blank_lines_join_the_step_before_them():
    assert steps("a\n\n \nb\n\n", "newline") == ["a\n\n \n", "b\n\n"]


def test_blank_lines_before_the_first_step_belong_to_it():
    assert steps("\n \n  a\nb", "newline") == ["\n \n  a\n", "b"]


@pytest.mark.parametrize("how", ["newline", "sentence", "numbered"])
@pytest.mark.parametrize("text", ["", " \n \n", "no end"])
def test_a_text_without_boundaries_is_one_step(text, how):
    assert split_steps(text, how) == [(0, len(text))]


def test_sentences_end_before_white_space_and_numbers_stay_whole():
    text = 'So 3.5 + 1 = 4.5. Is it? Yes ("it is!") Done.'
    assert steps(text, "sentence") == [
        "So 3.5 + 1 = 4.5.",
        " Is it?",
        ' Yes ("it is!")',
        " Done.",
    ]


def test_a_list_mark_stays_with_its_sentence():
    text = "1. Add them. 2. Halve it.\na) Look. 17. Then stop."
    assert steps(text, "sentence") == [
        "1. Add them.",
        " 2. Halve it.",
        "\na) Look.",
        " 17. Then stop.",
    ]


def test_an_empty_line_ends_a_sentence():
    assert steps("x = 3\n\ny = 4\nz = 5", "sentence") == ["x = 3", "\n\ny = 4\nz = 5"]


def test_full_width_signs_end_sentences_without_a_space():
    stop, question = "\u3002", "\uff1f"
    text = f"一{stop}二{question}三"
    assert steps(text, "sentence") == [f"一{stop}", f"二{question}", "三"]


def test_numbered_lines_open_steps_and_what_comes_before_is_one():
    text = "Plan:\n1. Add\n   more\n(2) Halve\n**Step 3:** check\n3.5 is not a mark\n### Step 4\nx"
    assert steps(text, "numbered") == [
        "Plan:\n",
        "1. Add\n   more\n",
        "(2) Halve\n",
        "**Step 3:** check\n3.5 is not a mark\n",
        "### Step 4\nx",
    ]


@pytest.mark.parametrize("how", ["newline", "sentence", "numbered"])
@given(text=st.text(alphabet="a1.!?) (\n\t*#-\u3002"))
def test_steps_tile_any_text_and_none_is_blank_beside_another(how: str, text: str) -> None:
    found = steps(text, how)
    assert len(found) == 1 or all(step.strip() for step in found)


@pytest.mark.parametrize("how", ["newline", "sentence", "numbered"])
@pytest.mark.timeout(5)
@pytest.mark.parametrize("sign", [".", " ", "\n", '."', "(", "1", "- ", "1. "])
def test_a_policy_that_repeats_itself_costs_no_time(sign, how):
    assert split_steps("a" + sign * 20_000 + "a", how)


# --- section ---


def test_a_section_runs_from_its_marker_up_to_the_next():
    text = "Well. Analysis: the sign. Corrected solution: 4"
    span = section(text, "Analysis:", "Corrected solution:")
    assert span == (6, 26)
    assert text[slice(*span)] == "Analysis: the sign. "


@pytest.mark.parametrize(
    "text", ["", "Analysis: the sign.", "Corrected solution: 4", "Corrected solution: Analysis: x"]
)
def test_a_section_lacks_a_marker(text):
    assert section(text, "Analysis:", "Corrected solution:") is None


def test_equal_markers_are_two_occurrences():
    assert section("a | b | c", "|", "|") == (2, 6)


def test_an_empty_marker_is_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        section("text", "", "x")
