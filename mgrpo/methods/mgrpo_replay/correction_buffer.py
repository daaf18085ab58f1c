"""Successful corrections of earlier steps, which train again off policy."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence

from pydantic import PositiveFloat, PositiveInt

from mgrpo.config.base import StrictConfig
from mgrpo.records.json_object import JsonObject
from mgrpo.types import Completion, Replayed


class CorrectionBufferSettings(StrictConfig):
    """Keys of correction_buffer."""

    capacity: PositiveInt = 256
    """Capacity in corrections; the oldest is removed first."""
    per_step: PositiveInt = 16
    """Corrections drawn for each step, without replacement."""
    max_age: PositiveInt | None = 8
    """Corrections of policies more than this many versions old are dropped; null: kept."""
    weight: PositiveFloat = 1.0
    """Factor on their mean loss, beside the layers'."""


class CorrectionBuffer:
    """First in, first out; when it is full the oldest leaves."""

    def __init__(self, config: CorrectionBufferSettings, seed: int) -> None:
        self.config, self.seed = config, seed
        self.kept: deque[Replayed] = deque(maxlen=config.capacity)

    def __len__(self) -> int:
        return len(self.kept)

    def add(self, completions: Sequence[Completion]) -> None:
        """Keep the corrections that were right and trained with an advantage above 0."""
        for one in completions:
            is_good = one.layer > 1 and one.selected and one.is_correct
            if is_good and one.advantage is not None and one.advantage > 0:
                self.kept.append(self.replayed(one, one.advantage))

    def replayed(self, completion: Completion, advantage: float) -> Replayed:
        return Replayed(completion=completion, advantage=advantage, weight=self.config.weight)

    def draw(self, step: int, policy_version: int) -> list[Replayed]:
        """Some of the kept ones, seeded by the step; those too old are forgotten."""
        if self.config.max_age is not None:
            oldest = policy_version - self.config.max_age
            fresh = [one for one in self.kept if one.completion.oldest_version >= oldest]
            self.kept = deque(fresh, maxlen=self.config.capacity)
        rng = random.Random(f"{self.seed}/corrections/{step}")
        return rng.sample(list(self.kept), min(self.config.per_step, len(self.kept)))

    def state_dict(self) -> list[JsonObject]:
        """Plain values, fit for JSON."""
        return [
            {"completion": one.completion.to_json(), "advantage": one.advantage}
            for one in self.kept
        ]

    def load_state_dict(self, state: Sequence[JsonObject]) -> None:
        """Continue where `state_dict` was taken."""
        self.kept = deque(
            (
                self.replayed(Completion.from_json(one["completion"]), one["advantage"])
                for one in state
            ),
            maxlen=self.config.capacity,
        )
