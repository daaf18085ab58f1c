"""Token columns: NumPy arrays from the engine's actor to the gradient, and records that hold them.

Ids are int32, log-probabilities float32, masks bool. A record that is given lists makes arrays of
them. No torch here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

TokenIds = NDArray[np.int32]
Logprobs = NDArray[np.float32]
TokenMask = NDArray[np.bool_]


def as_list(token_ids: Sequence[int] | TokenIds) -> list[int]:
    """Token ids as Python's integers, which tokenizers and vLLM's prompts take."""
    return token_ids.tolist() if isinstance(token_ids, np.ndarray) else list(token_ids)


class ColumnRecord:
    """Base of frozen records with token columns: makes arrays of lists, and compares arrays."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # arrays have no hash
    ARRAYS: ClassVar[dict[str, type[np.generic]]]  # by field, what its array holds

    def __post_init__(self) -> None:
        for name, kind in self.ARRAYS.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, np.asarray(value, dtype=kind))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        for one in dataclasses.fields(self):  # type: ignore[arg-type]
            if not is_same(getattr(self, one.name), getattr(other, one.name)):
                return False
        return True


def is_same(one: object, other: object) -> bool:
    """Equal, where arrays and dictionaries of arrays are compared by what they hold."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)  # type: ignore[arg-type]  # None is no array, and unequal
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    return one == other
