"""Sources: what the next step samples and trains on, and what must be remembered for that.

Sources are stacked. The lowest draws problems; each above it may replace or add to what the one
below gives. A method's own source lies in its folder and is declared there (`mgrpo/registry.py`):

    class EverySecond(Source):                  # declared as SOURCES = {"every_second": ...}
        '''Every second step trains on what the step before sampled.'''

        state_name = "every_second"

        def next(self, step, workers, sums):
            return Work(ready=self.kept) if step % 2 else self.inner.next(step, workers, sums)

        def observe(self, step, completions, sums):
            self.kept = list(completions)
            self.inner.observe(step, completions, sums)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from mgrpo.config import RunConfig
from mgrpo.metric_sums import MetricSums
from mgrpo.types import Completion, Problem, Replayed


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one step samples and trains on.

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
    ) -> list[Completion]:
        """Completions of some layers (None: all) of the problems, scored."""
        ...

    def sequence_logprobs(self, step: int, completions: Sequence[Completion]) -> list[float]:
        """[completions] log-probabilities under the policy now, in nats."""
        ...


class Source(ABC):
    """Says what a step trains on."""

    state_name: ClassVar[str] = ""
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

    def state_dict(self) -> Any:
        """Plain values, fit for JSON."""
        return None

    def load_state_dict(self, state: Any) -> None:
        """Continue where `state_dict` was taken."""
        return


class ProblemSource(Source):
    """The lowest source: draws problems, and can leave some out from now on."""

    excluded: set[str]
    """Ids of problems that are not drawn again; whoever fills it keeps it in its own state."""
    num_problems: int

    @abstractmethod
    def take(self, count: int) -> list[Problem]:
        """The next `count` problems."""


class StackedSource(Source):
    """A source above another: by default it hands through what the one below gives."""

    def __init__(self, config: RunConfig, problems: ProblemSource, inner: Source) -> None:
        """
        Args:
            config: the recipe.
            problems: the lowest source, for those that draw by themselves.
            inner: the source below.
        """
        self.config, self.problems, self.inner = config, problems, inner

    def next(self, step: int, workers: Workers, sums: MetricSums) -> Work | None:
        return self.inner.next(step, workers, sums)

    def observe(self, step: int, completions: Sequence[Completion], sums: MetricSums) -> None:
        self.inner.observe(step, completions, sums)
