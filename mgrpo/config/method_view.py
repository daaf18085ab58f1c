"""The method of a recipe: what it samples and trains, apart from where and how fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mgrpo.config.data import DataConfig
from mgrpo.config.engines import SamplingConfig
from mgrpo.config.layers import LayerConfig
from mgrpo.config.learner import ObjectiveConfig
from mgrpo.config.plugins import PhaseConfig, PluginConfig
from mgrpo.config.rewards import RewardsConfig
from mgrpo.config.sources import Fresh, SourcePart


@dataclass(frozen=True, slots=True)
class StepConfig:
    """The sections that a phase may change, with the values that they have at one step."""

    layers: Sequence[LayerConfig]
    objective: ObjectiveConfig
    sampling: SamplingConfig
    source: Fresh | SourcePart

    def tree(self) -> dict[str, object]:
        """The sections as in a recipe's file."""
        return {
            "layers": [layer.model_dump(mode="json") for layer in self.layers],
            "objective": self.objective.model_dump(mode="json"),
            "sampling": self.sampling.model_dump(mode="json"),
            "source": self.source.model_dump(mode="json"),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodView:
    """All that a plug-in sees of the recipe that it is part of.

    Example: the longest completion of the layers that a plug-in works on:
        max(method.layers[number - 1].max_completion_tokens for number in layers)
    """

    outside_phases: StepConfig
    phases: tuple[tuple[PhaseConfig, StepConfig], ...]  # by ascending first step
    rewards: RewardsConfig
    plugins: Sequence[PluginConfig]
    data: DataConfig
    prompts_per_step: int
    num_ranks: int  # of the learner
    seed: int  # of all random draws
    num_ahead: int  # so many updates older may the policy be that sampled a step

    @property
    def layers(self) -> Sequence[LayerConfig]:
        """The chain, outside phases."""
        return self.outside_phases.layers

    @property
    def objective(self) -> ObjectiveConfig:
        """The objective, outside phases."""
        return self.outside_phases.objective

    @property
    def sampling(self) -> SamplingConfig:
        """Sampling, outside phases."""
        return self.outside_phases.sampling

    @property
    def source(self) -> Fresh | SourcePart:
        """What a step trains on, outside phases."""
        return self.outside_phases.source

    @property
    def ever(self) -> list[StepConfig]:
        """Every set of values that the run may have at a step: the recipe's own, each phase's."""
        return [self.outside_phases, *(values for _, values in self.phases)]

    def at_step(self, step: int) -> StepConfig:
        """The values of one step, counted from 0."""
        active = [values for phase, values in self.phases if phase.is_active(step)]
        return active[-1] if active else self.outside_phases

    def always_with(self, values: StepConfig) -> MethodView:
        """A method that has one phase's values from its first step to its last."""
        return replace(self, outside_phases=values, phases=())

    @property
    def problems_per_minibatch(self) -> int:
        """Of one optimizer step, at most; outside phases."""
        return self.objective.problems_per_minibatch(self.prompts_per_step)

    @property
    def max_kl_weight(self) -> float:
        """The largest factor on the KL term of any layer in any phase; 0 needs no reference."""
        return max(
            values.objective.kl.weight if layer.kl_weight is None else layer.kl_weight
            for values in self.ever
            for layer in values.layers
        )
