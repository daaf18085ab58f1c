"""Steps on rollouts, which leave preference pairs, and steps on these pairs, in phases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.errors import ConfigError, Faults
from mgrpo.methods.veripo.preference_cycle import PreferenceCycle
from mgrpo.methods.veripo.preference_pairs import make_consistency_check
from mgrpo.methods.veripo.settings import PreferenceSettings
from mgrpo.metric_sums import MetricSums
from mgrpo.records.json_object import JsonObject
from mgrpo.training.sources.source import SourcePlugin, Work, Workers
from mgrpo.types import Completion


class PreferencePhases(SourcePlugin):
    """Hands rollouts through and keeps preference pairs of them, or gives pairs that were kept, in
    phases with `train_on: pairs` (VerIPO, arXiv 2505.19000).

    Metrics:
        pairs/made_KIND: pairs of a kind that the step made.
        pairs/waiting: pairs for the next phase of pairs.
        pairs/trained: pairs that the step trained.
        pairs/of_phase: pairs of the phase.
        pairs/dropped_problems: problems that are never drawn again.
    """

    Settings: ClassVar[type[StrictConfig]] = PreferenceSettings
    needs: ClassVar[tuple[str, ...]] = ("dpo",)
    may_change: ClassVar[frozenset[str]] = frozenset({"train_on"})
    needs_joint: ClassVar[bool] = True
    state_name = "preferences"

    @classmethod
    def faults(cls, settings: Any, layers: frozenset[int], method: MethodView) -> Faults:
        yield from super().faults(settings, layers, method)
        try:
            make_consistency_check(settings.verifier)  # it may be a user's own
        except ConfigError as error:
            yield from error.faults

    def begin(self) -> None:
        self.cycle = PreferenceCycle(
            self.settings,
            seed=self.method.seed,
            prompts_per_step=self.method.prompts_per_step,
        )

    def next(self, step: int, workers: Workers, sums: MetricSums) -> Work | None:
        if self.trains_on_rollouts(step):
            return self.inner.next(step, workers, sums)
        cycle = self.cycle
        if not cycle.is_training_pairs:
            cycle.begin(
                lambda sides: workers.sequence_logprobs(step, sides), self.fresh.num_problems
            )
            self.fresh.excluded = cycle.dropped
        rows = cycle.take(step)
        sums.add("pairs/trained", len(rows) // 2)
        sums.add("pairs/of_phase", len(cycle.phase_pairs))
        sums.add("pairs/dropped_problems", len(cycle.dropped))
        # Where the phase has used its pairs up, the policy stays as it is.
        return Work(ready=rows) if rows else None

    def observe(self, step: int, completions: Sequence[Completion], sums: MetricSums) -> None:
        if not self.trains_on_rollouts(step):
            return  # pairs are no rollouts: they say nothing new of their problems
        self.inner.observe(step, completions, sums)
        for kind, count in self.cycle.add(completions).items():
            sums.add(f"pairs/made_{kind}", count)
        sums.add("pairs/waiting", len(self.cycle.waiting))

    def trains_on_rollouts(self, step: int) -> bool:
        return bool(self.settings_at(step).train_on == "rollouts")

    def state_dict(self) -> JsonObject:
        return self.cycle.state_dict()

    def load_state_dict(self, state: JsonObject) -> None:
        self.cycle.load_state_dict(state)
        self.fresh.excluded = self.cycle.dropped
