"""Makes the default policy: supervised training of a small Llama from scratch on a CPU.

    python -m scripts.default_policy

It imitates the traces of `traces.py`, good and bad habits alike, so that what it ends with is
a policy that a run can improve, not a good solver. Only completions are trained on. The same
seed, on the same machine with the same number of threads, gives the same weights.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scripts.default_policy.default_tasks import question_source
from scripts.default_policy.tiny_tokenizer import MAX_LENGTH, train_tokenizer
from scripts.default_policy.warm_start_corpus import Corpus, Example, tokenizer_texts

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

HIDDEN_SIZE = 128
NUM_LAYERS = 4
HEAD_SIZE = 32  # the smallest that vLLM's CPU attention takes
MLP_SIZE = 384

NUM_STEPS = 3000
BATCH_SIZE = 48
LEARNING_RATE = 2.5e-3
WARM_UP_STEPS = 100
WEIGHT_DECAY = 0.01
MAX_GRAD_NORM = 1.0
NUM_TOKENIZER_QUESTIONS = 20_000
BATCHES_SORTED_TOGETHER = 16
"""Examples of this many batches are sorted by length before they are cut into batches, which
halves the padding."""
IGNORED = -100  # torch's cross entropy leaves these labels out


def warm_start(
    output_dir: str | Path,
    *,
    seed: int = 0,
    steps: int = NUM_STEPS,
    batch_size: int = BATCH_SIZE,
    num_tokenizer_questions: int = NUM_TOKENIZER_QUESTIONS,
    report: Callable[[str], None] = print,
) -> list[float]:
    """Train the default policy and save it in Hugging Face form.

    Returns:
        [steps] the loss of each step: mean over completion tokens, nats.
    """
    draw_question = question_source()
    texts = tokenizer_texts(draw_question, size=num_tokenizer_questions, seed=seed)
    tokenizer = train_tokenizer(texts)
    model = untrained_model(tokenizer, seed=seed)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    report(f"{num_parameters:,} parameters, {len(tokenizer)} tokens, {steps} steps")

    corpus = Corpus(tokenizer, draw_question, end_of_turn_id=tokenizer.eos_token_id)
    batches = batches_of(corpus, batch_size, random.Random(seed))
    losses = train(model, batches, steps=steps, pad_id=tokenizer.pad_token_id, report=report)
    save(model, tokenizer, Path(output_dir), seed=seed, steps=steps)
    report(f"Saved to {output_dir}")
    return losses


def untrained_model(tokenizer: PreTrainedTokenizerFast, *, seed: int) -> LlamaForCausalLM:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN_SIZE,
        intermediate_size=MLP_SIZE,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=HIDDEN_SIZE // HEAD_SIZE,
        num_key_value_heads=HIDDEN_SIZE // HEAD_SIZE,
        head_dim=HEAD_SIZE,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def batches_of(corpus: Corpus, batch_size: int, rng: random.Random) -> Iterator[list[Example]]:
    """Endless batches of examples of similar length, in random order."""
    while True:
        drawn = [corpus.example(rng) for _ in range(batch_size * BATCHES_SORTED_TOGETHER)]
        drawn.sort(key=lambda example: len(example.prompt_ids) + len(example.completion_ids))
        starts = list(range(0, len(drawn), batch_size))
        rng.shuffle(starts)
        for start in starts:
            yield drawn[start : start + batch_size]


def train(
    model: LlamaForCausalLM,
    batches: Iterator[list[Example]],
    *,
    steps: int,
    pad_id: int,
    report: Callable[[str], None],
) -> list[float]:
    """AdamW with a linear warm-up and a cosine that ends at 0."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, steps)
    )
    model.train()
    losses = []
    for step in range(steps):
        loss = completion_loss(model, next(batches), pad_id)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 250 == 0:
            report(f"step {step + 1} of {steps}: loss {sum(losses[-250:]) / 250:.4f}")
    return losses


def learning_rate_factor(step: int, steps: int) -> float:
    warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
    return warm_up * 0.5 * (1 + math.cos(math.pi * step / steps))


def completion_loss(model: LlamaForCausalLM, batch: list[Example], pad_id: int) -> Tensor:
    """Mean cross entropy over the completion tokens of the batch, in nats."""
    input_ids_BT, labels_BT = padded(batch, pad_id)
    # Padding stands on the right, where causal attention never looks: no mask is needed.
    with torch.autocast("cpu", torch.bfloat16):  # a third faster where the CPU multiplies bfloat16
        logits_BTV = model(input_ids=input_ids_BT, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].float().flatten(0, 1), labels_BT[:, 1:].flatten(), ignore_index=IGNORED
    )


def padded(batch: list[Example], pad_id: int) -> tuple[Tensor, Tensor]:
    """[B, T] token ids padded on the right, and [B, T] labels: IGNORED outside completions."""
    length = max(len(example.prompt_ids) + len(example.completion_ids) for example in batch)
    input_ids_BT = torch.full((len(batch), length), pad_id)
    labels_BT = torch.full((len(batch), length), IGNORED)
    for row, example in enumerate(batch):
        start, end = len(example.prompt_ids), len(example.prompt_ids) + len(example.completion_ids)
        input_ids_BT[row, :end] = torch.tensor(example.prompt_ids + example.completion_ids)
        labels_BT[row, start:end] = torch.tensor(example.completion_ids)
    return input_ids_BT, labels_BT


def save(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    output_dir: Path,
    *,
    seed: int,
    steps: int,
) -> None:
    output_dir.mkdir(parents=True, exist_ok=True)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    origin = {"made_by": "python -m scripts.default_policy", "seed": seed, "steps": steps}
    # Written readable only by its owner; the shipped copy is readable by all.
    (output_dir / "model.safetensors").chmod(0o644)
    (output_dir / "origin.json").write_text(json.dumps(origin, indent=2) + "\n")
