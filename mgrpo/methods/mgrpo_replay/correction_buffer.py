"""Successful corrections of earlier steps, which train again off policy."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Any

from mgrpo.config import CorrectionBufferConfig
from mgrpo.types import Completion, Replayed


class CorrectionBuffer:
    """First in, first out; when it is full the oldest leaves."""

    def __init__(self, config: CorrectionBufferConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.kept: deque[Replayed] = deque(maxlen=config.capacity)

    def __len__(self) -> int:
        return len(self.kept)

    def add(self, completions: Sequence[Completion]) -> None:
        """Keep the corrections that were right and trained with an advantage above 0."""
        for one in completions:
            is_good = one.layer > 1 and one.selected and one.is_correct
            if is_good and one.advantage is not None and one.advantage > 0:
                self.kept.append(Replayed(completion=one, advantage=one.advantage))

    def draw(self, step: int, policy_version: int) -> list[Replayed]:
        """Some of the kept ones, seeded by the step; those too old are forgotten."""
        if self.config.max_age is not None:
            oldest = policy_version - self.config.max_age
            fresh = [one for one in self.kept if one.completion.oldest_version >= oldest]
            self.kept = deque(fresh, maxlen=self.config.capacity)
        rng = random.Random(f"{self.seed}/corrections/{step}")
        return rng.sample(list(self.kept), min(self.config.per_step, len(self.kept)))

    def state_dict(self) -> list[dict[str, Any]]:
        """Plain values, fit for JSON."""
        return [
            {"completion": one.completion.to_json(), "advantage": one.advantage}
            for one in self.kept
        ]

    def load_state_dict(self, state: Sequence[dict[str, Any]]) -> None:
        """Continue where `state_dict` was taken."""
        self.kept = deque(
            (
                Replayed(
                    completion=Completion.from_json(one["completion"]), advantage=one["advantage"]
                )
                for one in state
            ),
            maxlen=self.config.capacity,
        )
