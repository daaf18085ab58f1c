"""One step's completions as columns, which plug-ins read and write.

N completions. Row columns are [N] and known on every rank. M tokens of the completions whose tokens
are here, end to end in the completions' order: of all where a plug-in of the recipe needs them all
(`LearnerPlugin.needs_all_tokens`), elsewhere of those that this rank trains on. Token columns are
flat [M]; nothing is padded, so no mask is needed to keep padding out. All are float64 on the CPU.

What is asked of rows is the same on all ranks: `row_sums`, `row_means` and `total` add up over
ranks, so every rank must call them alike.
"""

from __future__ import annotations

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

TOO_EARLY = (
    "Tokens are shared out among ranks after selection: a plug-in that looks at them before needs "
    "needs_all_tokens = True."
)


@dataclass(kw_only=True)
class StepBatch:
    """The input of one update: every completion of the step with its columns."""

    completions: Sequence[Completion]  # N, scored
    parents: Mapping[str, Completion]  # by completion_id; holds `completions` too
    groups: Sequence[Hashable]  # N; completions with the same value are compared
    step: int
    measurements: dict[str, Any] = field(default_factory=dict)  # by name: [N], [M] or N tensors
    metrics: Metrics = field(default_factory=dict)  # plug-ins may add name: (sum, count)
    minibatch_of: Sequence[int] = ()  # N; which optimizer step trains each; (): one trains all
    add_over_ranks: Callable[[Tensor], Tensor] | None = None
    """Adds a tensor up over ranks, in place. None: the tokens of all completions are here."""

    def __post_init__(self) -> None:
        lengths = [len(one.token_ids) for one in self.completions]
        self.lengths = torch.tensor(lengths, dtype=torch.int64)  # [N]
        self._held: Tensor | None = None
        if self.add_over_ranks is None:
            self.hold(range(len(self.completions)))
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

    def hold(self, places: Sequence[int]) -> None:
        """Say of which completions the token columns are here: places in rising order."""
        self._held = torch.tensor(list(places), dtype=torch.int64)
        self._row_of_token = self._held.repeat_interleave(self.lengths[self._held])

    @property
    def held(self) -> list[int]:
        """Places of the completions whose tokens are here."""
        assert self._held is not None, TOO_EARLY
        return self._held.tolist()

    @property
    def row_of_token(self) -> Tensor:
        """[M] int64 place of the completion that a token is of."""
        assert self._held is not None, TOO_EARLY
        return self._row_of_token

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

    def total(self, values: Tensor) -> float:
        """The sum of [M] values over the tokens of all ranks."""
        return float(self._over_ranks(values.double().sum()))

    def row_sums(self, values: Tensor) -> Tensor:
        """[M] -> [N], 0 for a completion whose tokens are on no rank."""
        own = torch.zeros(len(self.completions), dtype=values.dtype).index_add(
            0, self.row_of_token, values
        )
        return self._over_ranks(own)

    def _over_ranks(self, values: Tensor) -> Tensor:
        return values if self.add_over_ranks is None else self.add_over_ranks(values)

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
