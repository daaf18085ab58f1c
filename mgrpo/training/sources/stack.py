"""A recipe's sources, stacked in one order, found by the names that folders declare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mgrpo.config import MethodView, ObjectiveConfig, RobustSamplingConfig, SamplingConfig
from mgrpo.data.sampler import Sampler, ShufflingSampler
from mgrpo.metric_sums import MetricSums
from mgrpo.plugin import load_plugins
from mgrpo.registry import load
from mgrpo.training.sources.fresh import FreshProblems
from mgrpo.training.sources.source import Source, SourcePlugin, Work, Workers
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


def make_sources(
    method: MethodView, robust: RobustSamplingConfig | None, problems: Sequence[Problem]
) -> SourceStack:
    """The sources that a recipe's keys ask for, and above them its plug-ins' own.

    Args:
        robust: how domains are weighed (`data.robust`); None draws all problems equally often.
    """
    lowest = FreshProblems(
        problems,
        make_sampler(robust, problems, method.seed),
        problems_per_step=method.prompts_per_step,
    )
    sources: list[Source] = [lowest]
    for name in source_names(method.sampling, method.objective):
        sources.append(load("SOURCES", name)(method, lowest, sources[-1]))
    for plugin in load_plugins(method, SourcePlugin):
        plugin.stand_on(method, lowest, sources[-1])
        sources.append(plugin)
    return SourceStack(sources)


def source_names(sampling: SamplingConfig, objective: ObjectiveConfig) -> Iterator[str]:
    """Names of the sources above the lowest, in the order in which they are stacked."""
    if sampling.dynamic is not None:
        yield "dynamic"
    if objective.update_order == "pooled_errors":
        yield "error_pool"
    if objective.update_order == "preference_phases":
        yield "preferences"
    if objective.correction_buffer is not None:
        yield "correction_buffer"


def make_sampler(
    robust: RobustSamplingConfig | None, problems: Sequence[Problem], seed: int
) -> Sampler:
    """Which problems come next."""
    if robust is None:
        return ShufflingSampler(len(problems), seed)
    domains = [one.domain for one in problems]
    sampler: Sampler = load("SAMPLERS", "robust")(domains, robust, seed)
    return sampler
