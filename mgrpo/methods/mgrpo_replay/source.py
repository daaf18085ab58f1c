"""Steps that also train again on successful corrections of earlier steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mgrpo.methods.mgrpo_replay.correction_buffer import CorrectionBuffer
from mgrpo.metric_sums import MetricSums
from mgrpo.training.sources.source import StackedSource, Work, Workers
from mgrpo.types import Completion


class ReplayedCorrections(StackedSource):
    """Adds kept corrections to each step's work, and keeps the step's own good ones."""

    state_name = "corrections"

    def begin(self) -> None:
        settings = self.method.objective.correction_buffer
        assert settings is not None, "stacked where the recipe has a correction buffer"
        self.buffer = CorrectionBuffer(settings, self.method.seed)

    def next(self, step: int, workers: Workers, sums: MetricSums) -> Work | None:
        work = self.inner.next(step, workers, sums)
        if work is None:
            return None
        replayed = self.buffer.draw(step, workers.policy_version)
        sums.add("correction_buffer/replayed", len(replayed))
        return replace(work, replayed=replayed)

    def observe(self, step: int, completions: Sequence[Completion], sums: MetricSums) -> None:
        self.inner.observe(step, completions, sums)
        self.buffer.add(completions)
        sums.add("correction_buffer/size", len(self.buffer))

    def state_dict(self) -> list[dict[str, Any]]:
        return self.buffer.state_dict()

    def load_state_dict(self, state: Sequence[dict[str, Any]]) -> None:
        self.buffer.load_state_dict(state)
