"""Last-layer hidden states of a decoder at chosen tokens, for any number of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def hidden_states(
    decoder: Any,
    sequences: Sequence[Sequence[int]],
    places: Sequence[Sequence[int]],
    *,
    device: torch.device | str,
) -> list[Tensor]:
    """States at chosen tokens, in one forward.

    Args:
        decoder: the part of a Hugging Face causal language model below its output layer.
        sequences: token ids, none empty.
        places: per sequence [k], indices of its tokens.

    Returns:
        Per sequence [k, D]. Attention is causal, so each is the state of the prefix that ends
        with that token, and padding on the right changes nothing.
    """
    longest = max(len(sequence) for sequence in sequences)
    padded = [[*sequence, *([0] * (longest - len(sequence)))] for sequence in sequences]
    input_ids = torch.tensor(padded, device=device)  # [n, T]
    hidden = decoder(input_ids=input_ids, use_cache=False).last_hidden_state  # [n, T, D]
    return [
        hidden[row, torch.tensor(list(at), dtype=torch.int64, device=device)]
        for row, at in enumerate(places)
    ]


@torch.no_grad()
def hidden_states_in_batches(
    decoder: object,
    sequences: Sequence[Sequence[int]],
    places: Sequence[Sequence[int]],
    *,
    device: torch.device | str,
    batch_tokens: int,
) -> list[Tensor]:
    """`hidden_states` without gradient, of at most `batch_tokens` with padding at a time.

    A longer sequence goes alone.
    """
    found: list[Tensor] = [torch.empty(0)] * len(sequences)
    for batch in similar_batches([len(sequence) for sequence in sequences], batch_tokens):
        states = hidden_states(
            decoder, [sequences[i] for i in batch], [places[i] for i in batch], device=device
        )
        for index, state in zip(batch, states, strict=True):
            found[index] = state
    return found


def similar_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices, longest first, in batches of at most `batch_tokens` with padding."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
