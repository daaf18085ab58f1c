"""Samples a small policy in this process: no engine has to start between steps of a warm start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

ROWS_AT_ONCE = 512


@torch.inference_mode()
def sample(
    model: LlamaForCausalLM,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    end_id: int,
    generator: torch.Generator,
) -> list[list[int]]:
    """One completion a prompt at temperature 1, of the whole distribution.

    Args:
        prompts: token ids of each; those of similar length are sampled together.
        max_tokens: a longer completion is cut.
        end_id: ends a completion, and is its last token.
        generator: the same state gives the same completions.

    Returns:
        Token ids of each prompt's completion, in the order of the prompts.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    completions: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), ROWS_AT_ONCE):
        rows = order[start : start + ROWS_AT_ONCE]
        sampled = sample_together(
            model, [prompts[row] for row in rows], max_tokens, end_id, generator
        )
        for row, ids in zip(rows, sampled, strict=True):
            completions[row] = ids
    return completions


def sample_together(
    model: LlamaForCausalLM,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    end_id: int,
    generator: torch.Generator,
) -> list[list[int]]:
    """As `sample`, in one batch whose prompts are padded on the left."""
    longest = max(len(prompt) for prompt in prompts)
    ids_BT = torch.full((len(prompts), longest), end_id)
    mask_BT = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids_BT[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask_BT[row, longest - len(prompt) :] = 1
    completions: list[list[int]] = [[] for _ in prompts]
    is_running = [True] * len(prompts)
    cache = None
    positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    for _ in range(max_tokens):
        output = model(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            position_ids=positions_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        probabilities_BV = torch.softmax(output.logits[:, -1].float(), dim=-1)
        ids_BT = torch.multinomial(probabilities_BV, 1, generator=generator)
        for row, token in enumerate(ids_BT[:, 0].tolist()):
            if is_running[row]:
                completions[row].append(token)
                is_running[row] = token != end_id
        if not any(is_running):
            break
        mask_BT = torch.cat([mask_BT, torch.ones_like(ids_BT)], dim=1)
        positions_BT = positions_BT[:, -1:] + 1
    return completions
