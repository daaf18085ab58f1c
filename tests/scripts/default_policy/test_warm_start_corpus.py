import random

import pytest

from scripts.default_policy import traces, warm_start_corpus
from scripts.default_policy.tiny_tokenizer import train_tokenizer
from scripts.default_policy.warm_start_corpus import Corpus, tokenizer_texts

SUM = "State the final answer to the following arithmetic problem: 23 + 48 - 17 ="


def one_sum(rng: random.Random) -> tuple[str, str]:
    return "chain_sum", SUM


TOKENIZER = train_tokenizer(tokenizer_texts(one_sum, size=20, seed=0))


def examples(count: int) -> list[tuple[str, str]]:
    corpus = Corpus(TOKENIZER, one_sum, end_of_turn_id=TOKENIZER.eos_token_id)
    rng = random.Random(0)
    drawn = [corpus.example(rng) for _ in range(count)]
    return [
        (TOKENIZER.decode(example.prompt_ids), TOKENIZER.decode(example.completion_ids))
        for example in drawn
    ]


def test_every_example_ends_with_a_boxed_answer_and_the_end_of_turn():
    for _, completion in examples(200):
        assert completion.endswith("}<|im_end|>")
        assert completion.count("\\boxed{") == 1


def test_practice_gives_the_opening_words_and_leaves_the_rest_to_learn(monkeypatch):
    monkeypatch.setattr(warm_start_corpus, "PRACTICE_SHARE", 1.0)
    openings = [text for habit in ("careful", "recheck") for text, _ in traces.OPENINGS[habit]]
    for prompt, completion in examples(100):
        assert prompt.endswith(tuple(openings))
        assert completion.startswith(" ")


def test_without_practice_the_policy_chooses_how_to_begin(monkeypatch):
    monkeypatch.setattr(warm_start_corpus, "PRACTICE_SHARE", 0.0)
    openings = tuple(text for wordings in traces.OPENINGS.values() for text, _ in wordings)
    drawn = examples(400)
    assert all(completion.startswith(openings) for _, completion in drawn)
    first = [completion for prompt, completion in drawn if "boxed{" not in prompt]
    quick = [text for text, _ in traces.OPENINGS["quick"]]
    share = sum(completion.startswith(tuple(quick)) for completion in first) / len(first)
    assert share == pytest.approx(traces.QUICK_SHARE, abs=0.1)


def test_a_correction_of_a_correction_holds_only_the_latest_attempt(monkeypatch):
    monkeypatch.setattr(warm_start_corpus, "CORRECTION_SHARE", 1.0)
    monkeypatch.setattr(warm_start_corpus, "SECOND_CORRECTION_SHARE", 1.0)
    monkeypatch.setattr(warm_start_corpus, "LAYOUT_SHARES", (("review_chat", 1.0),))
    monkeypatch.setattr(warm_start_corpus, "REVIEW_SYSTEM_SHARES", (("", 1.0),))
    for prompt, _ in examples(50):
        assert prompt.count("\\boxed{") == 1
