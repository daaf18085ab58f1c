"""One GPU's memory, item by item, each with its formula."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30
MIB = 2**20
CONTEXT_BYTES = GIB
"""CUDA's context, NCCL's channels and the allocator's rest of one process: an estimate."""


@dataclass(frozen=True, slots=True)
class MemoryItem:
    """One use of memory."""

    name: str
    num_bytes: int
    how: str  # the formula, in words


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """All uses of one GPU by one allocation."""

    items: tuple[MemoryItem, ...]
    on_host: tuple[MemoryItem, ...] = ()
    """What the same process has in the machine's memory instead, all the time."""

    @property
    def total(self) -> int:
        return sum(item.num_bytes for item in self.items)

    @property
    def largest(self) -> MemoryItem:
        return max(self.items, key=lambda item: item.num_bytes)

    def of(self, name: str) -> int:
        """The bytes of one item; 0 if there is none of that name."""
        return sum(item.num_bytes for item in self.items if item.name == name)
