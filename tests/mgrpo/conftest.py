"""What the front door's tests share: a small recipe, and a model folder without a real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

CHAT_TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CONTEXT = 1200  # tokens of the tiny model, which are characters


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Any]:
    """A recipe with two layers and three sums, as YAML would give it."""
    data = tmp_path / "sums.jsonl"
    rows = [{"question": f"What is {n} + 4?", "answer": str(n + 4)} for n in (1, 2, 3)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "name": "small",
        "steps": 2,
        "prompts_per_step": 2,
        "model": {"path": "default"},
        "data": {"train": {"source": "jsonl", "path": str(data)}, "max_prompt_tokens": 300},
        "layers": [
            {"name": "solve", "group_size": 4, "max_completion_tokens": 50},
            {"name": "correct", "group_size": 2, "max_completion_tokens": 60},
        ],
    }


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder: a Llama of a few hundred weights, and a tokenizer of single characters."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    characters = [chr(code) for code in range(32, 127)] + ["\n", "<end>", "?unknown"]
    vocabulary = {character: index for index, character in enumerate(characters)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?unknown"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)
    settings = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        eos_token_id=vocabulary["<end>"],
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(settings).save_pretrained(folder)
    return folder
