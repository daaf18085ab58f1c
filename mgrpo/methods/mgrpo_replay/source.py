"""Steps that also train again on successful corrections of earlier steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigFault, Faults
from mgrpo.methods.mgrpo_replay.correction_buffer import CorrectionBuffer, CorrectionBufferSettings
from mgrpo.metric_sums import MetricSums
from mgrpo.records.json_object import JsonObject
from mgrpo.training.sources.source import SourcePlugin, Work, Workers
from mgrpo.types import Completion


class ReplayedCorrections(SourcePlugin):
    """Adds successful corrections of earlier steps to each step's work, to train again off policy,
    and keeps the step's own.

    Their stored log-probabilities are the old policy's, so the ratio is a true one and the clip
    range limits it.

    Metrics:
        correction_buffer/replayed: earlier corrections that train again in this step.
        correction_buffer/size: corrections held.
    """

    Settings: ClassVar[type[StrictConfig]] = CorrectionBufferSettings
    replays: ClassVar[bool] = True
    state_name = "corrections"

    @classmethod
    def faults(cls, settings: Any, layers: frozenset[int], method: MethodView) -> Faults:
        yield from super().faults(settings, layers, method)
        if len(method.layers) < 2:
            why = "a chain of one layer has no corrections to keep."
            yield ConfigFault("(plug-in)", "correction_buffer", why)

    def begin(self) -> None:
        self.buffer = CorrectionBuffer(self.settings, self.method.seed)

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

    def state_dict(self) -> list[JsonObject]:
        return self.buffer.state_dict()

    def load_state_dict(self, state: Sequence[JsonObject]) -> None:
        self.buffer.load_state_dict(state)
