"""Steps that train layer 1 and keep its errors, and steps that correct kept ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.config.layers import BestParents, later_layers
from mgrpo.errors import ConfigFault, Faults, must_be
from mgrpo.methods.scrpo.error_pool import ErrorPool, ErrorPoolSettings
from mgrpo.metric_sums import MetricSums
from mgrpo.records.json_object import JsonObject
from mgrpo.training.sources.source import SourcePlugin, Work, Workers
from mgrpo.types import Completion, Problem


class PooledErrors(SourcePlugin):
    """Gives first attempts at new problems, whose errors enter a pool, or corrections of pooled
    errors.

    Metrics:
        error_pool/added: wrong attempts that entered the pool.
        error_pool/size: attempts held.
        error_pool/dropped_stale: attempts removed because of their age.
        error_pool/is_correction_step: 1 where the step trains corrections, else 0.
    """

    Settings: ClassVar[type[StrictConfig]] = ErrorPoolSettings
    draws: ClassVar[bool] = True
    needs_joint: ClassVar[bool] = True
    one_layer: ClassVar[bool] = True
    state_name = "error_pool"

    @classmethod
    def faults(cls, settings: Any, layers: frozenset[int], method: MethodView) -> Faults:
        yield from super().faults(settings, layers, method)
        if len(method.layers) != 2:
            why = "error_pool needs a chain of 2 layers, one that solves and one that corrects."
            yield ConfigFault("(layers)", f"{len(method.layers)} layers", why)
            return
        parents = later_layers(method.layers)[0].parents
        if isinstance(parents, BestParents):
            why = "every pooled attempt failed, so no corrections would be sampled."
            yield from must_be("(layers.1.parents.all_fail)", parents.all_fail, "use_any", why)

    def begin(self) -> None:
        self.pool = ErrorPool(self.settings)
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
            skip_truncated = later_layers(layers)[0].skip_truncated_parents
            added = self.pool.add(self.attempted, completions, skip_truncated=skip_truncated)
            sums.add("error_pool/added", added)
        sums.add("error_pool/size", len(self.pool))

    def state_dict(self) -> JsonObject:
        return self.pool.state_dict()

    def load_state_dict(self, state: JsonObject) -> None:
        self.pool.load_state_dict(state)
