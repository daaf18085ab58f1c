"""Rows that begin alike share their tokens: the tree of a micro-batch and how rows are cut into it.

Attempts at one problem share its prompt, corrections of one attempt share that attempt's review
prompt, and where a correction continues its attempt the attempt itself is shared too. In sorted
order such rows are neighbours, so everything here is one walk over sorted rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mgrpo.records.token_columns import TokenIds

Nodes = NDArray[np.int64]

SIMILAR_LENGTH = 0.75
"""Rows of one attention call are at least this fraction of its longest row."""
MAX_ATTENTION_SHARE = 4
"""Attention sees rows whole, prefixes repeated. That costs about a tenth of what a token costs
elsewhere in the network, so a micro-batch may hold this many times its budget of them."""

PADDING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixTree:
    """Where the rows of a micro-batch lie among its distinct tokens (nodes).

    A node is a token with everything before it, so its hidden state is the same for every row
    that passes through. U: nodes. Padding in `buckets` points at node 0; it stands behind a
    row's last token, where causal attention cannot see it.
    """

    token_ids: Tensor  # [U] int64
    depths: Tensor  # [U] int64, the position of each node in its rows
    buckets: list[Tensor]  # [b, T] int64 each: the nodes of rows of similar length
    found_at: Tensor  # [U] int64, a place of each node in the flattened, concatenated buckets

    def to(self, device: torch.device | str) -> PrefixTree:
        return PrefixTree(
            token_ids=self.token_ids.to(device),
            depths=self.depths.to(device),
            buckets=[bucket.to(device) for bucket in self.buckets],
            found_at=self.found_at.to(device),
        )


def sorted_with_prefixes(sequences: Sequence[TokenIds]) -> tuple[list[int], list[int]]:
    """Order sequences so that those with a common prefix are neighbours.

    Returns:
        Indices in that order, and how many leading tokens each shares with the one before it
        (0 for the first). Sharing with any earlier sequence is never longer than that.
    """
    # Big-endian: bytes sort as numbers do.
    keys = [np.asarray(sequence).astype(">u4").tobytes() for sequence in sequences]
    arrays = [np.frombuffer(key, dtype=">u4") for key in keys]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    shared = [0] * len(order)
    for place in range(1, len(order)):
        before, here = arrays[order[place - 1]], arrays[order[place]]
        shortest = min(len(before), len(here))
        differs = np.flatnonzero(before[:shortest] != here[:shortest])
        shared[place] = int(differs[0]) if len(differs) else shortest
    return order, shared


def plan_merged(
    sequences: Sequence[TokenIds], *, num_ranks: int, budget_tokens: int
) -> list[list[list[int]]]:
    """Cut the sorted rows into ranks of about equal work, and each rank's into micro-batches.

    A micro-batch holds at most `budget_tokens` distinct tokens; a longer row goes alone.

    Returns:
        Per rank, per micro-batch, the indices of its rows in sorted order.
    """
    order, shared = sorted_with_prefixes(sequences)
    total = sum(len(sequences[index]) for index in order) - sum(shared)
    plans: list[list[list[int]]] = [[] for _ in range(num_ranks)]
    num_before, rank_before = 0, -1
    num_distinct = num_whole = 0  # tokens of the micro-batch being filled
    for index, num_shared in zip(order, shared, strict=True):
        length = len(sequences[index])
        num_new = length - num_shared
        # The rank in whose share of the tokens the middle of this row's new ones lies.
        rank = min(int(num_ranks * (num_before + num_new / 2) / total), num_ranks - 1)
        fits = (
            num_distinct + num_new <= budget_tokens
            and num_whole + length <= MAX_ATTENTION_SHARE * budget_tokens
        )
        if rank == rank_before and fits:
            plans[rank][-1].append(index)
            num_distinct, num_whole = num_distinct + num_new, num_whole + length
        else:
            plans[rank].append([index])
            num_distinct = num_whole = length
        num_before, rank_before = num_before + num_new, rank
    return plans


def build_tree(sequences: Sequence[TokenIds]) -> tuple[PrefixTree, list[Nodes]]:
    """Merge sequences (none empty) into a tree.

    Returns:
        The tree, and per sequence the node of each of its tokens.
    """
    order, shared = sorted_with_prefixes(sequences)
    token_ids: list[TokenIds] = []
    depths: list[Nodes] = []
    paths = [np.zeros(0, dtype=np.int64) for _ in sequences]
    before, num_nodes = paths[0], 0
    for index, num_shared in zip(order, shared, strict=True):
        sequence = np.asarray(sequences[index])
        num_new = len(sequence) - num_shared
        token_ids.append(sequence[num_shared:])
        depths.append(np.arange(num_shared, len(sequence)))
        new_nodes = np.arange(num_nodes, num_nodes + num_new)
        before = paths[index] = np.concatenate([before[:num_shared], new_nodes])
        num_nodes += num_new
    buckets = [padded(bucket, PADDING) for bucket in similar_lengths(paths)]
    flat = torch.cat([bucket.flatten() for bucket in buckets])
    places = (flat != PADDING).nonzero()[:, 0]
    found_at = torch.empty(num_nodes, dtype=torch.int64)
    found_at[flat[places]] = places
    tree = PrefixTree(
        token_ids=torch.from_numpy(np.concatenate(token_ids).astype(np.int64)),
        depths=torch.from_numpy(np.concatenate(depths)),
        buckets=[bucket.clamp(min=0) for bucket in buckets],
        found_at=found_at,
    )
    return tree, paths


def padded(sequences: Sequence[NDArray[np.generic]], padding: int) -> Tensor:
    """[b, T] int64 of sequences, filled up on the right to the longest."""
    found = np.full((len(sequences), max(map(len, sequences))), padding, dtype=np.int64)
    for row, sequence in zip(found, sequences, strict=True):
        row[: len(sequence)] = sequence
    return torch.from_numpy(found)


def similar_lengths(paths: Sequence[Nodes]) -> list[list[Nodes]]:
    """Group paths by length, longest first, so that little is padded."""
    groups: list[list[Nodes]] = []
    for path in sorted(paths, key=len, reverse=True):
        if groups and len(path) >= SIMILAR_LENGTH * len(groups[-1][0]):
            groups[-1].append(path)
        else:
            groups.append([path])
    return groups
