"""Which rank trains which rows, in which micro-batches, and the tensors of each.

Which rank trains what is a pure function of the step, so every rank works it out for all ranks
without talking. Rows are merged into a prefix tree where the model can read one. Elsewhere
they are padded on the right: with causal attention nothing before the padding can see it, so
no attention mask is needed and the fast kernels apply.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.prefix_tree import PrefixTree, build_tree, padded, plan_merged
from learner.rows import TrainingRow, text

PAD_TOKEN_ID = 0
"""Any valid id will do: padding is read by no position that counts."""
TOKEN_ID_BITS = 32


def split_rows(lengths: Sequence[int], num_ranks: int) -> list[list[int]]:
    """Share rows out so that ranks get about the same number of tokens.

    Longest first, each to the rank with the fewest tokens so far (ties to the lowest rank).

    Returns:
        Per rank, the indices of its rows; every index once.
    """
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    loads = [0] * num_ranks
    for index in longest_first(lengths):
        rank = loads.index(min(loads))
        shares[rank].append(index)
        loads[rank] += lengths[index]
    return shares


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCost:
    """What one completion costs the rank that has it."""

    tree: Hashable  # completions of one problem have the same one
    num_trained: int  # tokens that pass through the model, 0 where it does not train
    num_tokens: int


def share_trees(costs: Sequence[RowCost], num_ranks: int) -> list[list[int]]:
    """Share completions out so that a tree stays on one rank and ranks train as many tokens.

    Costliest tree first, each to the rank with the least to train so far, of equal ones to that
    with the fewest tokens. A tree that is more than one rank's share of the work is cut, in the
    order of its completions, into pieces of at most that.

    Returns:
        Per rank, the places of its completions, rising; every place once.
    """
    trees: dict[Hashable, list[int]] = {}
    for place, cost in enumerate(costs):
        trees.setdefault(cost.tree, []).append(place)
    most = max(1, math.ceil(sum(one.num_trained for one in costs) / num_ranks))
    pieces: list[tuple[int, int, list[int]]] = []  # trained tokens, all tokens, places
    for members in trees.values():
        piece: list[int] = []
        trained = tokens = 0
        for place in members:
            cost = costs[place]
            if piece and trained + cost.num_trained > most:
                pieces.append((trained, tokens, piece))
                piece, trained, tokens = [], 0, 0
            piece.append(place)
            trained, tokens = trained + cost.num_trained, tokens + cost.num_tokens
        pieces.append((trained, tokens, piece))
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    loads = [(0, 0)] * num_ranks
    for trained, tokens, piece in sorted(pieces, key=lambda one: (-one[0], -one[1])):
        rank = loads.index(min(loads))
        shares[rank] += piece
        loads[rank] = (loads[rank][0] + trained, loads[rank][1] + tokens)
    return [sorted(share) for share in shares]


def cut_trees(trees: Sequence[Hashable], num_parts: int) -> list[int]:
    """Cut a step into parts of whole trees, in the order in which trees first appear.

    The numbers of trees of two parts differ by at most one; fewer trees than parts make fewer
    parts.

    Args:
        trees: [N] of each completion.

    Returns:
        [N] the number of each completion's part, 0 for the first.
    """
    places = {tree: place for place, tree in enumerate(dict.fromkeys(trees))}
    most = min(num_parts, len(places))
    return [places[tree] * most // len(places) for tree in trees]


def plan_microbatches(lengths: Sequence[int], budget_tokens: int) -> list[list[int]]:
    """Group rows of similar length so that rows x longest row stays within the budget.

    A row that is longer than the budget goes alone.

    Returns:
        Per micro-batch, the indices of its rows, longest rows first.
    """
    microbatches: list[list[int]] = []
    for index in longest_first(lengths):
        longest = lengths[microbatches[-1][0]] if microbatches else 0
        if microbatches and (len(microbatches[-1]) + 1) * longest <= budget_tokens:
            microbatches[-1].append(index)
        else:
            microbatches.append([index])
    return microbatches


def plan_rows(
    rows: Sequence[TrainingRow], *, budget_tokens: int, merge_prefixes: bool
) -> list[list[int]]:
    """The micro-batches of a rank's rows, as indices into them; none without rows."""
    if merge_prefixes:
        return plan_merged([row.input_token_ids for row in rows], budget_tokens)
    return plan_microbatches([row.num_input_tokens for row in rows], budget_tokens)


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Indices by falling length; equal lengths keep their order."""
    return sorted(range(len(lengths)), key=lambda index: -lengths[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Microbatch:
    """The tensors of one forward and backward. n: trained tokens of all rows together.

    An empty micro-batch (`completion_ids` is empty) holds one dummy row whose weight is 0.
    """

    completion_ids: list[str]
    input_ids: Tensor  # [1, U] int64, or [b, T] padded on the right without a tree
    prefix_tree: PrefixTree | None
    positions: Tensor  # [n] int64, where in the flattened input each token is predicted
    target_ids: Tensor  # [n] int64, the tokens that were sampled there
    distinct: Tensor  # [K] int64, of tokens that follow the same node and are the same: one's place
    distinct_ids: Tensor  # [n] int64, which of the K each token is
    rollout_logprobs: Tensor  # [n] float32
    advantages: Tensor  # [n] float32
    token_weights: Tensor  # [n] float32
    kl_weights: Tensor  # [n] float32
    entropy_weights: Tensor | None  # [n] float32; None: all 0
    is_sampled: Tensor  # [n] bool: false has no rollout_logprob
    has_recorded_ratio: Tensor  # [n] bool: the ratio is against rollout_logprobs
    row_ids: Tensor  # [n] int64, the place of each token's row
    columns: dict[str, Tensor]  # by name, [n] float32
    num_row_tokens: int  # that its rows have, repeated prefixes included, padding not

    @property
    def is_empty(self) -> bool:
        return not self.completion_ids

    @property
    def num_trained_tokens(self) -> int:
        return 0 if self.is_empty else len(self.target_ids)

    def read_by(
        self,
        model: Callable[..., tuple[Tensor, Tensor]],
        *,
        temperature: float,
        chunk_tokens: int,
        with_entropies: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy of each token; equal tokens of one node are computed once.

        Args:
            model: called with `PolicyModel.forward`'s arguments.

        Returns:
            [n] float32 in nats, both with gradient; [0] entropies without them.
        """
        logprobs, entropies = model(
            self.input_ids,
            self.positions[self.distinct],
            self.target_ids[self.distinct],
            temperature,
            chunk_tokens,
            self.prefix_tree,
            with_entropies=with_entropies,
        )
        ids = self.distinct_ids
        return logprobs[ids], entropies[ids] if with_entropies else entropies


DUMMY_ROW = text([PAD_TOKEN_ID], [PAD_TOKEN_ID])


def collate(
    rows: Sequence[TrainingRow], device: torch.device | str = "cpu", *, merge_prefixes: bool
) -> Microbatch:
    """Lay rows out as the model reads them, and flatten what is known per trained token."""
    completion_ids = [row.completion_id for row in rows]
    rows = rows or [DUMMY_ROW]
    inputs = [row.input_token_ids for row in rows]
    if merge_prefixes:
        tree, paths = build_tree(inputs)
        tree = tree.to(device)
        input_ids = tree.token_ids[None, :]
    else:
        tree = None
        input_ids = padded(inputs, PAD_TOKEN_ID).to(device)
        width = input_ids.shape[1]
        paths = [np.arange(number * width, (number + 1) * width) for number in range(len(rows))]
    positions = []
    for row, path in zip(rows, paths, strict=True):
        first = len(row.prompt_token_ids) - 1
        positions.append(path[first : first + len(row.token_ids)])
    target_ids = np.concatenate([row.token_ids for row in rows]).astype(np.int64)
    predicted = np.concatenate(positions) << TOKEN_ID_BITS | target_ids
    _, distinct, distinct_ids = np.unique(predicted, return_index=True, return_inverse=True)
    counts = torch.tensor([len(row.token_ids) for row in rows])

    def flat(columns: Iterable[NDArray[np.generic]], kind: type[np.generic] = np.float32) -> Tensor:
        return torch.from_numpy(np.concatenate(list(columns), dtype=kind, casting="unsafe")).to(
            device
        )

    def spread(values: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(values, dtype=dtype).repeat_interleave(counts).to(device)

    has_entropy_term = any(row.entropy_weights is not None for row in rows)
    return Microbatch(
        completion_ids=completion_ids,
        input_ids=input_ids,
        prefix_tree=tree,
        positions=flat(positions, np.int64),
        target_ids=flat([target_ids], np.int64),
        distinct=flat([distinct], np.int64),
        distinct_ids=flat([distinct_ids], np.int64),
        rollout_logprobs=flat(row.rollout_logprobs for row in rows),
        advantages=flat(row.advantages for row in rows),
        token_weights=flat(row.token_weights for row in rows),
        kl_weights=spread([row.kl_weight for row in rows]),
        entropy_weights=flat(
            known(row.entropy_weights, np.zeros(len(row.token_ids))) for row in rows
        )
        if has_entropy_term
        else None,
        is_sampled=flat(
            (known(row.is_sampled, np.ones(len(row.token_ids), dtype=np.bool_)) for row in rows),
            np.bool_,
        ),
        has_recorded_ratio=flat((row.has_recorded_ratio for row in rows), np.bool_),
        row_ids=spread(range(len(rows)), torch.int64),
        columns={
            name: flat(known(row.columns.get(name), np.zeros(len(row.token_ids))) for row in rows)
            for name in sorted({name for row in rows for name in row.columns})
        },
        num_row_tokens=sum(len(one) for one in inputs),
    )


def known(
    column: NDArray[np.generic] | None, otherwise: NDArray[np.generic]
) -> NDArray[np.generic]:
    return otherwise if column is None else column
