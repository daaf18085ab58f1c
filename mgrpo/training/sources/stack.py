"""A recipe's sources, stacked on the one that draws problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mgrpo.config import MethodView
from mgrpo.config.data import MixtureSource
from mgrpo.config.sources import Curriculum
from mgrpo.data.curriculum import CurriculumSampler, difficulties
from mgrpo.data.sampler import Sampler, ShufflingSampler
from mgrpo.data.weighted import WeightedSampler
from mgrpo.metric_sums import MetricSums
from mgrpo.plugin import load_plugins
from mgrpo.training.sources.fresh import FreshProblems
from mgrpo.training.sources.source import (
    SamplerPlugin,
    Source,
    SourcePlugin,
    Work,
    Workers,
)
from mgrpo.types import Completion, Problem


class SourceStack:
    """The sources of a run, as the loop calls them: always through the uppermost."""

    def __init__(self, sources: Sequence[Source]) -> None:
        """
        Args:
            sources: lowest first; each but the first holds the one before it.
        """
        self.sources = list(sources)

    def next(self, step: int, workers: Workers, sums: MetricSums) -> Work | None:
        """See `Source.next`."""
        return self.sources[-1].next(step, workers, sums)

    def observe(self, step: int, completions: Sequence[Completion], sums: MetricSums) -> None:
        """See `Source.observe`."""
        self.sources[-1].observe(step, completions, sums)

    def state_dict(self) -> dict[str, object]:
        """State by `state_name`, of the sources that have any."""
        return {one.state_name: one.state_dict() for one in self.sources if one.state_name}

    def load_state_dict(self, states: Mapping[str, object]) -> None:
        """Continue where `state_dict` was taken. A source without a state there begins empty."""
        for one in self.sources:
            if states.get(one.state_name) is not None:
                one.load_state_dict(states[one.state_name])


def make_sources(method: MethodView, problems: Sequence[Problem]) -> SourceStack:
    """The recipe's sources, above the one that draws problems."""
    lowest = FreshProblems(
        problems, make_sampler(method, problems), problems_per_step=method.prompts_per_step
    )
    sources: list[Source] = [lowest]
    for plugin in load_plugins(method, SourcePlugin):
        plugin.stand_on(method, lowest, sources[-1])
        sources.append(plugin)
    return SourceStack(sources)


def make_sampler(method: MethodView, problems: Sequence[Problem]) -> Sampler:
    """Which problems come next."""
    for plugin in load_plugins(method, SamplerPlugin):
        return plugin.make(problems, method.seed)
    sampler, train = method.data.sampler, method.data.train
    if isinstance(sampler, Curriculum):
        return CurriculumSampler(
            difficulties(problems, sampler),
            method.seed,
            start_fraction=sampler.start_fraction,
            num_draws_until_full=sampler.full_after_steps * method.prompts_per_step,
        )
    if isinstance(train, MixtureSource) and train.weights is not None:
        return WeightedSampler([one.source for one in problems], train.weights, method.seed)
    return ShufflingSampler(len(problems), method.seed)
