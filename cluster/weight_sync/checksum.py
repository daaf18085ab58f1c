"""A checksum of a tensor that depends only on its bytes, at the speed of memory.

The bytes are read as a matrix of 64-bit words. The sums of its rows and of its columns, modulo
2**64, are hashed, and the bytes of an unfinished last row with them. Integers: the order of sums
does not matter, so a CPU and a GPU agree. Not cryptographic: it finds accidents. But for an
accident of the hash (one in 2**64) it finds

- any change within one word, a single flipped bit for instance, and any of two words: one of two
  words in a row changes its column's sum, one of two in a column its row's;
- so two words that have changed places, unless they are equal, and a length that differs;
- any change that leaves not all sums of rows and columns as they were. One that does changes at
  least four words, in the corners of a rectangle, by amounts that cancel.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

ROW_WORDS = 4096
CHUNK_ROWS = 32  # 1 MiB, which a CPU's caches hold while it is added up in both directions
WORD_BYTES = 8


def tensor_checksum(tensor: Tensor) -> int:
    """A number of 64 bits.

    Args:
        tensor: any shape, any dtype; read in its own memory layout's logical order.
    """
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if flat.storage_offset() % WORD_BYTES:
        flat = flat.clone()
    row_bytes = ROW_WORDS * WORD_BYTES
    size = flat.numel() // row_bytes * row_bytes
    rows, columns = two_way_sums(flat[:size].view(torch.int64).view(-1, ROW_WORDS))
    digest = hashlib.blake2b(flat.numel().to_bytes(WORD_BYTES, "little"), digest_size=WORD_BYTES)
    for part in (rows, columns, flat[size:]):
        digest.update(part.cpu().numpy().tobytes())
    return int.from_bytes(digest.digest(), "little")


def two_way_sums(words: Tensor) -> tuple[Tensor, Tensor]:
    """[R] sums of rows and [C] sums of columns of [R, C] int64 words, modulo 2**64."""
    rows, columns = [], words.new_zeros(words.shape[1])
    for chunk in words.split(CHUNK_ROWS if words.device.type == "cpu" else max(1, len(words))):
        rows.append(chunk.sum(dim=1))
        columns += chunk.sum(dim=0)
    return torch.cat(rows), columns
