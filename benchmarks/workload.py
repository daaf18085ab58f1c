"""The work that every system of the step-time benchmark does, written into one folder.

    model/           a Llama with random weights and a tokenizer of bytes
    problems.jsonl   one question per line
    recipe.yaml      the same work as a recipe of ours

The same profile gives the same files. The policy never ends a completion by itself
(`never_sample`), so both systems sample exactly the same number of tokens.
"""

from __future__ import annotations

import json
import os
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 0
PAD, START, END = "<|pad|>", "<|start|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|start|>' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>' }}{% endif %}"
)
NEVER_WEIGHT = -20.0  # times a hidden value of 4 or more: a logit that is never sampled


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How large the policy and one step are."""

    hidden_size: int
    num_layers: int
    head_dim: int
    intermediate_size: int
    num_prompts: int  # per step; the data holds as many, so each step reads all
    group_size: int  # completions per prompt
    completion_tokens: int  # of each completion, exactly
    trl_batch_size: int  # completions per forward and backward of TRL
    learning_rate: float = 1e-6
    context: int = 512  # tokens that the policy can read

    @property
    def tokens_per_step(self) -> int:
        """Tokens sampled in one step."""
        return self.num_prompts * self.group_size * self.completion_tokens


PROFILES = {
    "default3m": Profile(
        hidden_size=256,
        num_layers=4,
        head_dim=64,
        intermediate_size=640,
        num_prompts=32,
        group_size=8,
        completion_tokens=48,
        trl_batch_size=64,
    ),
    # Does the command work? Its times mean nothing.
    "smoke": Profile(
        hidden_size=64,
        num_layers=2,
        head_dim=32,
        intermediate_size=128,
        num_prompts=4,
        group_size=2,
        completion_tokens=24,
        trl_batch_size=8,
    ),
}


def write_workload(profile: Profile, steps: int, folder: Path) -> None:
    """Write model, problems and recipe into `folder`."""
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(folder / "model")
    build_model(profile, tokenizer).save_pretrained(folder / "model")
    rows = [{"question": question, "answer": "0"} for question in questions(profile.num_prompts)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "problems.jsonl").write_text(lines, encoding="utf-8")
    (folder / "profile.json").write_text(json.dumps(asdict(profile)), encoding="utf-8")
    write_recipe(profile, steps, folder)


def questions(count: int) -> list[str]:
    """Sums of two or three numbers, about 40 characters each."""
    rng = random.Random(SEED)
    sums = (
        " + ".join(str(rng.randrange(10, 100)) for _ in range(rng.choice((2, 3))))
        for _ in range(count)
    )
    return [f"Work out the following sum: {terms} = ?" for terms in sums]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token, and so are three special ones; 259 in all."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = [PAD, START, END]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*specials, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in specials])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def build_model(profile: Profile, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama with random float32 weights, always the same ones."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    num_heads = profile.hidden_size // profile.head_dim
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=profile.hidden_size,
        intermediate_size=profile.intermediate_size,
        num_hidden_layers=profile.num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        head_dim=profile.head_dim,
        max_position_embeddings=profile.context,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    never_sample(model, tokenizer.all_special_ids)
    return model


def never_sample(model: LlamaForCausalLM, token_ids: list[int]) -> None:
    """Make some tokens unlikely beyond sampling, at no cost in time.

    Coordinate 0 of the hidden state is held at a constant, and the output layer turns it into
    a large negative logit of these tokens: a bias, which Llama has none of. Without the end
    token, both systems sample full-length completions without an option of their own.
    """
    import torch

    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 1.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        model.lm_head.weight[:, 0] = 0.0
        model.lm_head.weight[token_ids] = 0.0
        model.lm_head.weight[token_ids, 0] = NEVER_WEIGHT


def write_recipe(profile: Profile, steps: int, folder: Path) -> None:
    """The work as a recipe: plain GRPO, everything that a real run does switched on."""
    from mgrpo.config import RunConfig
    from mgrpo.config.load import save_recipe

    config = RunConfig.model_validate(recipe(profile, steps, folder))
    save_recipe(config, folder / "recipe.yaml")


def recipe(profile: Profile, steps: int, folder: Path) -> dict[str, Any]:
    """Keys not named here have the system's defaults.

    One engine and one learner rank take turns, so each gets every core.
    """
    cores = os.cpu_count() or 1
    return {
        "name": "step-time",
        "method": "GRPO",
        "seed": SEED,
        "steps": steps,
        "prompts_per_step": profile.num_prompts,
        "model": {"path": str(folder / "model"), "dtype": "float32"},
        "data": {"train": {"source": "jsonl", "path": str(folder / "problems.jsonl")}},
        "layers": [
            {
                "name": "solve",
                "group_size": profile.group_size,
                "max_completion_tokens": profile.completion_tokens,
                "system_prompt": "",
            }
        ],
        "engines": {"num_threads": cores},
        "learner": {
            "learning_rate": profile.learning_rate,
            "betas": [0.9, 0.999],  # TRL's default
            "num_threads": cores,
        },
        "rewards": {"terms": [{"check": "benchmarks.digit_share:digit_share"}]},
        "output": {"runs_dir": str(folder / "runs"), "report": False},
        "cluster": {"address": "local", "device": "cpu"},
    }
