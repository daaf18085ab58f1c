"""Rows that begin alike share their tokens: the tree of a micro-batch and how rows are cut into it.

Attempts at one problem share its prompt, corrections of one attempt share that attempt's review
prompt, and where a correction continues its attempt the attempt itself is shared too. In sorted
order such rows are neighbours, so everything here is one walk over sorted rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mgrpo.records.token_columns import TokenIds

Nodes = NDArray[np.int64]
Row = tuple[int, Nodes]
"""How many leading nodes of a row are those of rows before it, and all of its nodes."""

SIMILAR_LENGTH = 0.75
"""Rows of one attention call are at least this fraction of its longest row, and so are their
queries of its longest."""
SPARE_QUERIES = 8
"""A row may have this many queries more than that allows: calls cost something, too."""
LEAST_SHARED = 1 / 3
"""Of a row that shares less, all tokens are queries. On a CPU only the kernel for whole rows leaves
out what comes after a token, and such a row costs less by it."""
MAX_ATTENTION_SHARE = 4
"""Attention reads the keys of whole rows, prefixes repeated. They take room and are copied, so a
micro-batch may hold this many times its budget of them."""

PADDING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBucket:
    """Rows of one attention call. Those of their tokens that no row before them has are queries.

    Rows share all that lies before `first_query` with rows of before. Of what a row shares beyond
    that nobody takes the outputs.
    """

    nodes: Tensor  # [b, T] int64: the nodes of rows of similar length
    first_query: int  # the queries are nodes[:, first_query:]

    @property
    def num_queries(self) -> int:
        """Of each row."""
        return self.nodes.shape[1] - self.first_query


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixTree:
    """Where the rows of a micro-batch lie among its distinct tokens (nodes).

    A node is a token with everything before it, so its hidden state is the same for every row
    that passes through: attention computes it once, in the first row that has the node. U: nodes.
    Padding in `buckets` points at node 0; it stands behind a row's last token, where causal
    attention cannot see it.
    """

    token_ids: Tensor  # [U] int64
    depths: Tensor  # [U] int64, the position of each node in its rows
    buckets: list[RowBucket]  # rows without new nodes are in none
    found_at: Tensor  # [U] int64, place of each node in the flattened, concatenated queries

    def to(self, device: torch.device | str) -> PrefixTree:
        return PrefixTree(
            token_ids=self.token_ids.to(device),
            depths=self.depths.to(device),
            buckets=[replace(bucket, nodes=bucket.nodes.to(device)) for bucket in self.buckets],
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


def plan_merged(sequences: Sequence[TokenIds], budget_tokens: int) -> list[list[int]]:
    """Cut the sorted rows into micro-batches.

    A micro-batch holds at most `budget_tokens` distinct tokens; a longer row goes alone.

    Returns:
        Per micro-batch, the indices of its rows in sorted order.
    """
    order, shared = sorted_with_prefixes(sequences)
    plan: list[list[int]] = []
    num_distinct = num_whole = 0  # tokens of the micro-batch being filled
    for index, num_shared in zip(order, shared, strict=True):
        length = len(sequences[index])
        num_new = length - num_shared
        fits = (
            num_distinct + num_new <= budget_tokens
            and num_whole + length <= MAX_ATTENTION_SHARE * budget_tokens
        )
        if plan and fits:
            plan[-1].append(index)
            num_distinct, num_whole = num_distinct + num_new, num_whole + length
        else:
            plan.append([index])
            num_distinct = num_whole = length
    return plan


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
    rows_with_new: list[Row] = []
    for index, num_shared in zip(order, shared, strict=True):
        sequence = np.asarray(sequences[index])
        num_new = len(sequence) - num_shared
        token_ids.append(sequence[num_shared:])
        depths.append(np.arange(num_shared, len(sequence)))
        new_nodes = np.arange(num_nodes, num_nodes + num_new)
        before = paths[index] = np.concatenate([before[:num_shared], new_nodes])
        num_nodes += num_new
        if num_new:
            rows_with_new.append((num_shared, before))
    buckets, queries = [], []
    for group in similar_rows(rows_with_new):
        first_query = min(first_query_of(row) for row in group)
        nodes = padded([path for _, path in group], 0)
        new = torch.full((len(group), nodes.shape[1] - first_query), PADDING, dtype=torch.int64)
        for row, (num_shared, path) in zip(new, group, strict=True):
            here = slice(num_shared - first_query, len(path) - first_query)
            row[here] = torch.from_numpy(path[num_shared:])
        buckets.append(RowBucket(nodes=nodes, first_query=first_query))
        queries.append(new.flatten())
    flat = torch.cat(queries)
    places = (flat != PADDING).nonzero()[:, 0]
    found_at = torch.empty(num_nodes, dtype=torch.int64)
    found_at[flat[places]] = places
    tree = PrefixTree(
        token_ids=torch.from_numpy(np.concatenate(token_ids).astype(np.int64)),
        depths=torch.from_numpy(np.concatenate(depths)),
        buckets=buckets,
        found_at=found_at,
    )
    return tree, paths


def padded(sequences: Sequence[NDArray[np.generic]], padding: int) -> Tensor:
    """[b, T] int64 of sequences, filled up on the right to the longest."""
    found = np.full((len(sequences), max(map(len, sequences))), padding, dtype=np.int64)
    for row, sequence in zip(found, sequences, strict=True):
        row[: len(sequence)] = sequence
    return torch.from_numpy(found)


def similar_rows(rows: Sequence[Row]) -> list[list[Row]]:
    """Group rows by length and by number of queries, longest first, so that little is padded."""
    groups: list[list[Row]] = []
    shapes: list[tuple[int, int, int]] = []  # longest row, first query, fewest queries
    for row in sorted(rows, key=lambda row: -len(row[1])):
        length, first = len(row[1]), first_query_of(row)
        for place, (longest, first_of_all, fewest) in enumerate(shapes):
            first_of_all, fewest = min(first_of_all, first), min(fewest, length - first)
            most = longest - first_of_all
            if (
                length >= SIMILAR_LENGTH * longest
                and fewest >= SIMILAR_LENGTH * most - SPARE_QUERIES
            ):
                groups[place].append(row)
                shapes[place] = (longest, first_of_all, fewest)
                break
        else:
            groups.append([row])
            shapes.append((length, first, length - first))
    return groups


def first_query_of(row: Row) -> int:
    num_shared, path = row
    return num_shared if num_shared >= LEAST_SHARED * len(path) else 0
