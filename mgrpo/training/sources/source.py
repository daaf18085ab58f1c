"""Sources: the problems and completions of the next step, with their state.

Sources are stacked. The lowest draws problems; each above it may replace or add to what the one
below gives. They lie in the folders of their methods and are declared there (`mgrpo/registry.py`),
or are a user's own:

    class Twice(SourcePlugin):              # source: {type: ./mine.py:Twice}
        '''Every second step asks the problems of the step before again.'''

        work = Work()

        def next(self, step, workers, sums):
            if step % 2 == 0:
                self.work = self.inner.next(step, workers, sums)
            return self.work

        def state_dict(self):
            return [one.problem_id for one in self.work.problems]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from actors.rollout import Refill
from mgrpo.config import MethodView
from mgrpo.config.sources import stacked
from mgrpo.data.sampler import Sampler
from mgrpo.metric_sums import MetricSums
from mgrpo.plugin import Plugin
from mgrpo.registry import Kind
from mgrpo.sources import SourceKind, kind_of
from mgrpo.types import Completion, Problem, Replayed


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The work of one step: problems to sample, and completions to train on.

    Example: a step that samples corrections of two attempts, which do not train themselves:
        Work(problems=[p, q], layers=range(2, 3), parents=[attempt_at_p, attempt_at_q])
    """

    problems: Sequence[Problem] = ()  # to be sampled, in the order of their slots
    slots: Sequence[int] | None = None  # the problems' numbers in the step; None counts from 0
    layers: range | None = None  # numbers of the layers to sample; None: the whole chain
    ready: Sequence[Completion] = ()  # sampled already; they train
    parents: Sequence[Completion] = ()  # sampled already; they are corrected and do not train
    replayed: Sequence[Replayed] = ()  # train again, with the advantage that they had


class Workers(Protocol):
    """What a source may ask of the run's engines and learner."""

    @property
    def policy_version(self) -> int: ...

    def sample(
        self,
        step: int,
        problems: Sequence[Problem],
        sums: MetricSums,
        *,
        layers: range | None = None,
        attempts: Sequence[Completion] = (),
        slots: Sequence[int] | None = None,
        refill: Refill | None = None,
    ) -> list[Completion]:
        """Completions of some layers (None: all) of the problems, scored, and of those that
        `refill` adds while others are still being sampled."""
        ...

    def sequence_logprobs(self, step: int, completions: Sequence[Completion]) -> list[float]:
        """[completions] log-probabilities under the policy now, in nats."""
        ...


class Source(ABC):
    """Provides the work of a step."""

    state_name: str = ""
    """Under which name a checkpoint keeps its state; "" has none."""

    @abstractmethod
    def next(self, step: int, workers: Workers, sums: MetricSums) -> Work | None:
        """What the step samples and trains on; None leaves the policy as it is.

        Args:
            step: number of the step, from 0.
            workers: for a source that samples or measures by itself.
            sums: takes the source's metrics of the step.
        """

    def observe(self, step: int, completions: Sequence[Completion], sums: MetricSums) -> None:
        """Take in a step's completions, with what the learner decided of them.

        Called after every step that `next` gave work for. Parents are not among them.
        """
        return

    def state_dict(self) -> object:
        """Plain values, fit for JSON."""
        return None

    def load_state_dict(self, state: Any) -> None:
        """Continue from a `state_dict`."""
        return


class ProblemSource(Source):
    """The lowest source: draws problems, and can leave some out from now on."""

    excluded: set[str]
    """Ids of problems that are not drawn again; whoever fills it keeps it in its own state."""
    num_problems: int

    @abstractmethod
    def take(self, count: int) -> list[Problem]:
        """The next `count` problems."""


class SourcePlugin(SourceKind, Source):
    """Base class of a source above another; `self.settings` has its keys. By default it hands
    through what the one below gives.

    Give it a `state_dict` and a `load_state_dict` where it remembers anything: a run that is
    resumed would go on otherwise without it.
    """

    def stand_on(self, method: MethodView, fresh: ProblemSource, inner: Source) -> None:
        """Take its place in the stack.

        Args:
            method: the recipe's.
            fresh: the lowest source, for those that draw by themselves.
            inner: the source below.
        """
        self.method, self.fresh, self.inner = method, fresh, inner
        self.state_name = self.state_name or f"plugin/{type(self).__name__}"
        self.begin()

    def begin(self) -> None:
        """Make what the source keeps, with nothing in it yet."""

    def next(self, step: int, workers: Workers, sums: MetricSums) -> Work | None:
        return self.inner.next(step, workers, sums)

    def observe(self, step: int, completions: Sequence[Completion], sums: MetricSums) -> None:
        self.inner.observe(step, completions, sums)

    def settings_at(self, step: int) -> Any:
        """Its settings as the recipe's phases have them at one step (see `may_change`)."""
        (own,) = (
            part
            for part in stacked(self.method.at_step(step).source)
            if kind_of(part) is type(self)
        )
        return self.Settings.model_validate(own.settings)


class SamplerPlugin(Plugin):
    """Base class of what fills the slot `data.sampler`; `self.settings` has its keys."""

    kind: ClassVar[Kind] = "SAMPLERS"

    def make(self, problems: Sequence[Problem], seed: int) -> Sampler:
        """The sampler of a run.

        Args:
            problems: of the training data, which the sampler's indices are places of.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `make`, which gives its sampler")
