"""One step's completions as columns, which plug-ins read and write.

N completions. Row columns are [N] and known on every rank. M tokens of the completions that this
rank holds, end to end in the completions' order; with one rank these are all. Token columns are
flat [M]; nothing is padded, so no mask is needed to keep padding out. All are float64 on the CPU.

Collectives reach what other ranks hold: `row_sums`, `row_means`, `total`, `sum_over_ranks`,
`gather_rows` and `gather_tokens`. Every rank must call them in the same order, also one that holds
nothing: whether one is called may depend on row columns, never on a rank's own tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgrpo.errors import DataError
from mgrpo.records.token_columns import TokenMask
from mgrpo.types import Completion

Metrics = dict[str, tuple[float, float]]


@dataclass(kw_only=True)
class StepBatch:
    """The input of one update: every completion of the step with its columns."""

    completions: Sequence[Completion]  # N, scored
    parents: Mapping[str, Completion]  # by completion_id; holds `completions` too
    groups: Sequence[Hashable]  # N; completions with the same value are compared
    step: int
    measurements: dict[str, Any] = field(default_factory=dict)  # by name: [N], [M] or N tensors
    token_measurements: frozenset[str] = frozenset()  # names of those that are [M]
    metrics: Metrics = field(default_factory=dict)
    """Plug-ins may add name: (sum, count), the same on every rank."""
    minibatch_of: Sequence[int] = ()  # N; which optimizer step trains each; (): one trains all
    held_places: Sequence[int] | None = None  # rising, of the completions held; None: all are
    add_over_ranks: Callable[[Tensor], Tensor] | None = None  # in place; None: there is one rank

    def __post_init__(self) -> None:
        lengths = [len(one.token_ids) for one in self.completions]
        self.lengths = torch.tensor(lengths, dtype=torch.int64)  # [N]
        places = range(len(lengths)) if self.held_places is None else self.held_places
        self._hold(places)
        self.layers = torch.tensor(
            [one.layer for one in self.completions], dtype=torch.int64
        )  # [N]
        self.rewards = self.rows(
            [0.0 if one.reward is None else one.reward.value for one in self.completions]
        )
        self.is_usable = torch.tensor(
            [one.reward is not None and one.reward.is_usable for one in self.completions],
            dtype=torch.bool,
        )
        self.is_correct = torch.tensor(
            [one.is_correct for one in self.completions], dtype=torch.bool
        )
        numbers = {group: number for number, group in enumerate(dict.fromkeys(self.groups))}
        self.group_ids = torch.tensor(
            [numbers[group] for group in self.groups], dtype=torch.int64
        )  # [N]
        self.minibatch_ids = torch.tensor(
            self.minibatch_of or [0] * len(lengths), dtype=torch.int64
        )  # [N]

    def _hold(self, places: Sequence[int]) -> None:
        self._held = torch.tensor(list(places), dtype=torch.int64)
        self.row_of_token = self._held.repeat_interleave(self.lengths[self._held])
        """[M] int64 place of the completion that a token is of."""

    def moved(self, places: Sequence[int]) -> StepBatch:
        """The same step where this rank holds other completions, with measurements of their tokens.

        A collective: every completion is then held by one rank, as before.

        Args:
            places: rising.
        """
        found = copy.copy(self)
        found._hold(places)
        found.measurements = {
            name: found.own_tokens(self.gather_tokens(value))
            if name in self.token_measurements
            else value
            for name, value in sorted(self.measurements.items())
        }
        return found

    def part(self, places: Sequence[int]) -> StepBatch:
        """The same step where this rank holds a part of its completions, without measurements of
        tokens."""
        found = copy.copy(self)
        found._hold(places)
        found.measurements = {
            name: value
            for name, value in self.measurements.items()
            if name not in self.token_measurements
        }
        return found

    @property
    def held(self) -> list[int]:
        """Places of the completions whose tokens are here, rising."""
        return self._held.tolist()

    def split(self, column: Tensor) -> list[Tensor]:
        """[M] -> the part of each completion whose tokens are here."""
        return list(column.split(self.lengths[self._held].tolist()))

    def remove(self, place: int, reason: str) -> None:
        """Leave a completion out of its group and of the loss."""
        one = self.completions[place]
        assert one.reward is not None, "only usable completions are removed"
        reward = replace(one.reward, status="removed", detail=reason)
        completions = list(self.completions)
        completions[place] = replace(one, reward=reward)
        self.completions = completions
        self.is_usable[place] = False

    def reading(self, name: str) -> Any:
        """A measurement that a plug-in computed with the policy (`read_policy`).

        Raises:
            DataError: no policy is loaded, and the measurement was not recorded.
        """
        if name not in self.measurements:
            raise DataError(
                f"{name} needs a forward pass, but no policy is loaded. To explain recorded "
                "completions, pass the policy that sampled them: --model."
            )
        return self.measurements[name]

    @staticmethod
    def rows(values: Sequence[float]) -> Tensor:
        """[N] float64."""
        return torch.tensor(values, dtype=torch.float64)

    @property
    def num_tokens(self) -> int:
        """M."""
        return len(self.row_of_token)

    @property
    def rollout_logprobs(self) -> Tensor:
        """[M] as recorded while sampling, nats."""
        parts = [self.completions[place].rollout_logprobs for place in self.held]
        return torch.from_numpy(np.concatenate([*parts, np.zeros(0)], dtype=np.float64))

    @property
    def versions(self) -> Tensor:
        """[M] int32 the policy version that sampled each token (see `mgrpo.records.turns`)."""
        parts = [self.completions[place].versions for place in self.held]
        return torch.from_numpy(np.concatenate([*parts, np.zeros(0, dtype=np.int32)]))

    @property
    def is_sampled(self) -> Tensor:
        """[M] bool: the policy sampled this token."""
        return self._joined([one.sampled_mask for one in self.completions])

    @property
    def is_trained(self) -> Tensor:
        """[M] bool: this token may carry loss."""
        return self._joined([one.train_mask for one in self.completions])

    def _joined(self, masks: Sequence[TokenMask | None]) -> Tensor:
        """[M] of a mask per completion; None is true throughout."""
        joined = np.ones(self.num_tokens, dtype=np.bool_)
        first = 0
        for place, length in zip(self.held, self.lengths[self._held].tolist(), strict=True):
            own = masks[place]
            if own is not None:
                joined[first : first + length] = own
            first += length
        return torch.from_numpy(joined)

    def in_span(self, name: str) -> Tensor:
        """[M] bool: the token lies in one of its completion's spans of this name."""
        inside = torch.zeros(self.num_tokens, dtype=torch.bool)
        first = 0
        for place in self.held:
            one = self.completions[place]
            for start, end in one.spans.get(name, []):
                inside[first + start : first + end] = True
            first += len(one.token_ids)
        return inside

    def in_layers(self, layers: frozenset[int]) -> Tensor:
        """[N] bool."""
        return torch.isin(self.layers, torch.tensor(sorted(layers), dtype=torch.int64))

    def by_minibatch(self, places: Sequence[int]) -> list[list[int]]:
        """Places of completions, those of one optimizer step together."""
        found: dict[int, list[int]] = {}
        for place, number in zip(places, self.minibatch_ids[list(places)].tolist(), strict=True):
            found.setdefault(number, []).append(place)
        return list(found.values())

    def minibatch_sums(self, values: Tensor) -> Tensor:
        """[N] -> [N] float64: the sum over all rows of each row's optimizer step."""
        sums = torch.zeros(len(values), dtype=torch.float64)
        return sums.index_add(0, self.minibatch_ids, values.double())[self.minibatch_ids]

    def spread(self, values: Tensor) -> Tensor:
        """[N] -> [M], each row's value on all of its tokens."""
        return values[self.row_of_token]

    # --- collectives ---

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """The sum of each rank's values, of the same shape on all; `values` may be overwritten."""
        return values if self.add_over_ranks is None else self.add_over_ranks(values)

    def total(self, values: Tensor) -> float:
        """The sum of [M] values over the tokens of all ranks."""
        return float(self.sum_over_ranks(values.double().sum()))

    def gather_rows(self, values: Tensor) -> Tensor:
        """Values of the completions held, [n, ...] -> [N, ...] of all; 0 of those no rank holds."""
        whole = torch.zeros((len(self.completions), *values.shape[1:]), dtype=values.dtype)
        whole[self._held] = values
        return self.sum_over_ranks(whole)

    def gather_tokens(self, column: Tensor) -> Tensor:
        """[M] -> a column of the whole step's tokens, end to end in the completions' order; 0 for
        those of completions that no rank holds.

        Every rank then has the column whole: where sums are enough, ask for sums.
        """
        dtype = torch.uint8 if column.dtype == torch.bool else column.dtype
        whole = torch.zeros(int(self.lengths.sum()), dtype=dtype)
        whole[self._places_in_step()] = column.to(dtype)
        return self.sum_over_ranks(whole).to(column.dtype)

    def own_tokens(self, whole: Tensor) -> Tensor:
        """A column of the whole step's tokens (see `gather_tokens`) -> [M]. No collective."""
        return whole[self._places_in_step()]

    def _places_in_step(self) -> Tensor:
        """[M] int64 place of each token among those of all completions."""
        own = self.lengths[self._held]
        before = self.lengths.cumsum(0) - self.lengths  # [N] tokens of earlier completions
        shift = before[self._held] - (own.cumsum(0) - own)
        return torch.arange(self.num_tokens) + shift.repeat_interleave(own)

    def row_sums(self, values: Tensor) -> Tensor:
        """[M] -> [N], 0 for a completion that no rank holds."""
        own = torch.zeros(len(self.completions), dtype=values.dtype)
        return self.sum_over_ranks(own.index_add(0, self.row_of_token, values))

    def row_means(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """[M] -> [N] means over the masked tokens; 0 for a row without any."""
        mask = torch.ones(self.num_tokens, dtype=torch.bool) if mask is None else mask
        counts = self.row_sums(mask.to(values.dtype))
        return self.row_sums(torch.where(mask, values, 0.0)) / counts.clamp(min=1)

    def group_means(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """[N] -> [N] each row's group's mean, over its usable rows (of those in `mask`, [N])."""
        size = int(self.group_ids.max()) + 1 if len(self.group_ids) else 0
        is_counted = self.is_usable if mask is None else self.is_usable & mask
        counted = torch.where(is_counted, values, 0.0)
        sums = torch.zeros(size, dtype=values.dtype).index_add(0, self.group_ids, counted)
        counts = torch.zeros(size, dtype=values.dtype).index_add(
            0, self.group_ids, is_counted.to(values.dtype)
        )
        return (sums / counts.clamp(min=1))[self.group_ids]
