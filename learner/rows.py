"""Completions as the learner trains on them: one row each, with what is known of its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from learner.columns import StepBatch
from mgrpo.records.token_columns import ColumnRecord, Logprobs, TokenIds, TokenMask

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingRow(ColumnRecord):
    """One completion that trains. T: its tokens. Its arrays are views of the step's columns."""

    ARRAYS: ClassVar = {
        "prompt_token_ids": np.int32,
        "token_ids": np.int32,
        "rollout_logprobs": np.float32,
        "advantages": np.float64,
        "token_weights": np.float64,
        "entropy_weights": np.float64,
        "is_sampled": np.bool_,
        "is_stale": np.bool_,
    }

    completion_id: str
    layer: int
    engine: str = ""  # that sampled it
    prompt_token_ids: TokenIds
    token_ids: TokenIds  # [T]
    rollout_logprobs: Logprobs  # [T], nats
    advantages: Values  # [T]
    token_weights: Values  # [T] factors on token losses: loss_weight / denominators
    entropy_weights: Values | None = None  # [T] factors on token entropies; None: all 0
    columns: Mapping[str, Values] = field(default_factory=dict)  # by name, [T]
    is_sampled: TokenMask | None = None  # [T] false has no rollout_logprob; None: all were
    is_replayed: bool = False  # of an earlier step, and trains again
    is_added: bool = False  # by a plug-in: it has that one's columns alone
    is_stale: TokenMask | None = None  # [T] sampled by an older policy; None: none were
    kl_weight: float = 0.0

    @property
    def input_token_ids(self) -> TokenIds:
        """What the model reads: the last token is predicted, never read."""
        return np.concatenate([self.prompt_token_ids, self.token_ids[:-1]])

    @property
    def has_recorded_ratio(self) -> TokenMask:
        """[T] the ratio is against rollout_logprobs, not against the policy before the update."""
        every = np.ones(len(self.token_ids), dtype=np.bool_)
        is_sampled = every if self.is_sampled is None else self.is_sampled
        if self.is_replayed:
            return is_sampled
        return ~every if self.is_stale is None else is_sampled & self.is_stale

    @property
    def num_input_tokens(self) -> int:
        return len(self.prompt_token_ids) + len(self.token_ids) - 1

    @property
    def has_gradient(self) -> bool:
        """False where loss and gradient are exactly 0."""
        has_more = self.entropy_weights is not None or bool(self.columns)
        return self.kl_weight > 0 or has_more or bool((self.advantages * self.token_weights).any())


@dataclass(frozen=True, slots=True)
class Minibatch:
    """What this rank trains in one optimizer step."""

    rows: list[TrainingRow]  # of the completions that `batch` holds, in their order, then others
    batch: StepBatch | None = None  # None: no plug-in refreshes columns


def text(
    prompt_token_ids: Sequence[int] | TokenIds, token_ids: Sequence[int] | TokenIds
) -> TrainingRow:
    """A text to read: neither may be empty. The prompt is what the tokens are predicted from."""
    zeros = np.zeros(len(token_ids))
    return TrainingRow(
        completion_id="text",
        layer=0,
        prompt_token_ids=np.asarray(prompt_token_ids, dtype=np.int32),
        token_ids=np.asarray(token_ids, dtype=np.int32),
        rollout_logprobs=zeros.astype(np.float32),
        advantages=zeros,
        token_weights=zeros,
    )
