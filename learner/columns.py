"""One step's completions as columns, which plug-ins read and write.

N completions, M tokens of all of them together, end to end in the completions' order. Row
columns are [N], token columns are flat [M]; nothing is padded, so no mask is needed to keep
padding out. All are float64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from mgrpo.errors import DataError
from mgrpo.types import Completion

Metrics = dict[str, tuple[float, float]]


@dataclass(kw_only=True)
class StepBatch:
    """What one update is given: every completion of the step, and what is known of each."""

    completions: Sequence[Completion]  # N, scored
    parents: Mapping[str, Completion]  # by completion_id; holds `completions` too
    groups: Sequence[Hashable]  # N; completions with the same value are compared
    step: int
    signals: dict[str, Any] = field(default_factory=dict)  # by name: [N], [M] or N tensors
    metrics: Metrics = field(default_factory=dict)  # plug-ins may add name: (sum, count)

    def __post_init__(self) -> None:
        lengths = [len(one.token_ids) for one in self.completions]
        self.lengths = torch.tensor(lengths, dtype=torch.int64)  # [N]
        self.row_of_token = torch.arange(len(self.completions)).repeat_interleave(self.lengths)
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
        """A signal that a plug-in has read of the policy itself (`read_policy`).

        Raises:
            DataError: there was no policy to read, and nobody gave the signal otherwise.
        """
        if name not in self.signals:
            raise DataError(
                f"{name} is read of the policy itself, and there is none here. To explain recorded "
                "completions give the policy that sampled them: --model."
            )
        return self.signals[name]

    @staticmethod
    def rows(values: Sequence[float]) -> Tensor:
        """[N] float64."""
        return torch.tensor(values, dtype=torch.float64)

    @property
    def num_tokens(self) -> int:
        return int(self.lengths.sum())

    @property
    def is_sampled(self) -> Tensor:
        """[M] bool: the policy sampled this token."""
        return self._mask("sampled_mask")

    @property
    def is_trained(self) -> Tensor:
        """[M] bool: this token may carry loss."""
        return self._mask("train_mask")

    def _mask(self, name: str) -> Tensor:
        masks = [
            [True] * len(one.token_ids) if getattr(one, name) is None else getattr(one, name)
            for one in self.completions
        ]
        return torch.tensor([value for mask in masks for value in mask], dtype=torch.bool)

    def in_span(self, name: str) -> Tensor:
        """[M] bool: the token lies in one of its completion's spans of this name."""
        inside = torch.zeros(self.num_tokens, dtype=torch.bool)
        first = 0
        for one in self.completions:
            for start, end in one.spans.get(name, []):
                inside[first + start : first + end] = True
            first += len(one.token_ids)
        return inside

    def in_layers(self, layers: frozenset[int]) -> Tensor:
        """[N] bool."""
        return torch.isin(self.layers, torch.tensor(sorted(layers), dtype=torch.int64))

    def spread(self, values: Tensor) -> Tensor:
        """[N] -> [M], each row's value on all of its tokens."""
        return values[self.row_of_token]

    def row_sums(self, values: Tensor) -> Tensor:
        """[M] -> [N]."""
        return torch.zeros(len(self.completions), dtype=values.dtype).index_add(
            0, self.row_of_token, values
        )

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
