"""The work that every system of the step-time benchmarks does, written into one folder.

    model/           a Llama with random weights and a tokenizer of bytes
    prompts.json     the prompts as text, a chat template already applied
    problems.jsonl   one question per line
    profile.json     the sizes
    recipe.yaml      the same work as a recipe of ours

The same profile gives the same files. Either the policy never ends a completion by itself
(`set_end`), so that both systems sample exactly the same number of tokens; or it ends one after
each token with the same probability, so that their lengths have the same distribution.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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
    completion_tokens: int  # of each completion, exactly; with mean_tokens at most
    mean_tokens: int | None = None  # the policy ends a completion after each token, 1 in so many
    num_corrections: int = 0  # of each attempt
    layout: str = "review_chat"  # of the corrections' prompts
    dtype: str = "float32"  # that the policy is trained in
    trl_batch_size: int  # completions per forward and backward of TRL
    learning_rate: float = 1e-6
    context: int = 512  # tokens that the policy can read

    @property
    def tokens_per_step(self) -> int | None:
        """Tokens sampled in one step; None where lengths vary."""
        if self.mean_tokens is not None:
            return None
        completions = self.num_prompts * self.group_size * (1 + self.num_corrections)
        return completions * self.completion_tokens

    @property
    def words(self) -> str:
        """The work of one step."""
        prompts = f"{self.num_prompts} prompts x {self.group_size} completions"
        if self.num_corrections:
            prompts += f", each with {self.num_corrections} corrections ({self.layout})"
        length = f"{self.completion_tokens} tokens each"
        if self.mean_tokens is not None:
            length = f"some {self.mean_tokens} tokens each, at most {self.completion_tokens}"
        return f"{prompts}, {length}"


PLAIN = Profile(
    hidden_size=256,
    num_layers=4,
    head_dim=64,
    intermediate_size=640,
    num_prompts=32,
    group_size=8,
    completion_tokens=48,
    trl_batch_size=64,
)
REVIEWED = replace(PLAIN, num_prompts=8, num_corrections=4)
SMOKE = Profile(
    hidden_size=64,
    num_layers=2,
    head_dim=32,
    intermediate_size=128,
    num_prompts=4,
    group_size=2,
    completion_tokens=24,
    trl_batch_size=8,
)
PROFILES = {
    "default3m": PLAIN,
    "varying3m": replace(PLAIN, mean_tokens=48, completion_tokens=192),
    "mgrpo_review": REVIEWED,
    "mgrpo_continue": replace(REVIEWED, layout="self_continue"),
    # Does the command work? Their times mean nothing.
    "smoke": SMOKE,
    "smoke_mgrpo": replace(SMOKE, num_corrections=2),
}


def write_workload(profile: Profile, steps: int, folder: Path) -> None:
    """Write model, problems and recipe into `folder`."""
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(folder / "model")
    build_model(profile, tokenizer).save_pretrained(folder / "model")
    rows = [{"question": question, "answer": "0"} for question in questions(profile.num_prompts)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "problems.jsonl").write_text(lines, encoding="utf-8")
    turns = [[{"role": "user", "content": row["question"]}] for row in rows]
    texts = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    write_prompts(profile, [str(text) for text in texts], folder)
    write_recipe(profile, steps, folder)


def write_corrections(profile: Profile, prompt_tokens: int, folder: Path) -> Path:
    """The corrections as a workload of their own, below the attempts' `folder`: for a system that
    has one layer. Their prompts have the length of ours, and are not the attempts.

    Returns:
        its folder.
    """
    own = folder / "corrections"
    own.mkdir(exist_ok=True)
    if not (own / "model").exists():
        (own / "model").symlink_to(folder / "model")
    count = profile.num_prompts * profile.group_size
    prompts = [START + f"{number:04d}".ljust(prompt_tokens - 1, "x") for number in range(count)]
    part = replace(profile, num_prompts=count, group_size=profile.num_corrections)
    write_prompts(part, prompts, own)
    return own


def write_prompts(profile: Profile, prompts: Sequence[str], folder: Path) -> None:
    (folder / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")
    (folder / "profile.json").write_text(json.dumps(asdict(profile)), encoding="utf-8")


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
    set_end(model, tokenizer, profile.mean_tokens)
    return model


def set_end(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, mean_tokens: int | None
) -> None:
    """Make special tokens unlikely beyond sampling, at no cost in time, but the end as likely as
    `mean_tokens` asks for.

    Coordinate 0 of the hidden state is held at a constant, and the output layer turns it into
    a logit of these tokens that hardly depends on the context: a bias, which Llama has none of.
    Without an end, both systems sample full-length completions without an option of their own.
    """
    import torch

    token_ids = tokenizer.all_special_ids
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 1.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        model.lm_head.weight[:, 0] = 0.0
        model.lm_head.weight[token_ids] = 0.0
        model.lm_head.weight[token_ids, 0] = NEVER_WEIGHT
        if mean_tokens is None:
            return
        some = torch.randint(len(token_ids), len(tokenizer), (64, 64))
        low, high = NEVER_WEIGHT, -NEVER_WEIGHT
        for _ in range(30):  # the mean probability rises with the weight
            middle = (low + high) / 2
            model.lm_head.weight[tokenizer.eos_token_id, 0] = middle
            found = model(some).logits.softmax(-1)[..., tokenizer.eos_token_id].mean()
            low, high = (middle, high) if found < 1 / mean_tokens else (low, middle)


def write_recipe(profile: Profile, steps: int, folder: Path) -> None:
    """The work as a recipe, everything that a real run does switched on."""
    from mgrpo.config import RunConfig
    from mgrpo.config.load import save_recipe

    config = RunConfig.model_validate(recipe(profile, steps, folder))
    save_recipe(config, folder / "recipe.yaml")


def recipe(profile: Profile, steps: int, folder: Path) -> dict[str, Any]:
    """Keys not named here have the system's defaults: a pool of as many engines as cores, with a
    thread each, and a learner rank with as many threads, which take turns.
    """
    correct: dict[str, Any] = {
        "name": "correct",
        "group_size": profile.num_corrections,
        "max_completion_tokens": profile.completion_tokens,
        "layout": profile.layout,
        "select": "none",
        "skip_truncated_parents": False,
    }
    return {
        "name": "step-time",
        "method": "MGRPO" if profile.num_corrections else "GRPO",
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
            },
            *([correct] if profile.num_corrections else []),
        ],
        "learner": {
            "dtype": profile.dtype,
            "learning_rate": profile.learning_rate,
            "betas": [0.9, 0.999],  # TRL's default
        },
        "rewards": {"terms": [{"check": "benchmarks.digit_share:digit_share"}]},
        "output": {"runs_dir": str(folder / "runs"), "report": False},
        "cluster": {"address": "local", "device": "cpu"},
    }
