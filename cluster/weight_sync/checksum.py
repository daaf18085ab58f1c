"""A checksum of a tensor that depends only on its bytes.

Integer arithmetic with wrap-around, so the order of the sums does not matter: a CPU and a GPU
agree, and a changed, moved or missing element shows. Not cryptographic: it finds accidents.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 22  # bounds the temporary int64 copy to 32 MiB
POSITION_PERIOD = 65_521  # prime, so that swapped rows of usual widths do not cancel

WORD_TYPES = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def tensor_checksum(tensor: Tensor) -> int:
    """Sum of (word + 1) * (position mod 65521 + 1) modulo 2**64, over the tensor's words.

    Args:
        tensor: any shape, any dtype; read in its own memory layout's logical order.
    """
    flat = tensor.detach().contiguous().reshape(-1)
    words = flat.view(WORD_TYPES[flat.element_size()])
    total = 0
    for start in range(0, words.numel(), CHUNK_ELEMENTS):
        chunk = words[start : start + CHUNK_ELEMENTS].to(torch.int64) + 1
        position = torch.arange(start, start + chunk.numel(), device=chunk.device)
        total += int((chunk * (position % POSITION_PERIOD + 1)).sum())
    return total % (1 << 64)
