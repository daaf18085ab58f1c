"""Steps that train layer 1 and keep its errors, and steps that correct kept ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mgrpo.config.layers import corrections_of
from mgrpo.methods.scrpo.error_pool import ErrorPool
from mgrpo.metric_sums import MetricSums
from mgrpo.training.sources.source import StackedSource, Work, Workers
from mgrpo.types import Completion, Problem


class PooledErrors(StackedSource):
    """Gives first attempts at new problems, or corrections of pooled errors."""

    state_name = "error_pool"

    def begin(self) -> None:
        self.pool = ErrorPool(self.method.objective.error_pool)
        self.attempted: Sequence[Problem] = ()  # by the step that is under way; () in a correction

    def next(self, step: int, workers: Workers, sums: MetricSums) -> Work:
        count = self.method.prompts_per_step
        sums.add("error_pool/dropped_stale", self.pool.drop_stale(workers.policy_version))
        is_correction = self.pool.is_due(step, count)
        sums.add("error_pool/is_correction_step", float(is_correction))
        if is_correction:
            self.attempted = ()
            problems, parents = self.pool.take(step, count)
            return Work(problems=problems, layers=range(2, 3), parents=parents)
        self.attempted = self.fresh.take(count)
        return Work(problems=self.attempted, layers=range(1, 2))

    def observe(self, step: int, completions: Sequence[Completion], sums: MetricSums) -> None:
        self.inner.observe(step, completions, sums)
        if self.attempted:
            layers = self.method.at_step(step).layers
            skip_truncated = corrections_of(layers)[0].skip_truncated_parents
            added = self.pool.add(self.attempted, completions, skip_truncated=skip_truncated)
            sums.add("error_pool/added", added)
        sums.add("error_pool/size", len(self.pool))

    def state_dict(self) -> dict[str, Any]:
        return self.pool.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pool.load_state_dict(state)
