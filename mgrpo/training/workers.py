"""Engines and learner as a step uses them: sample, update, measure, broadcast."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from actors.rollout import Rollout, with_verdicts
from cluster.weight_sync.broadcast import SyncReport
from mgrpo.config import RunConfig
from mgrpo.metric_sums import MetricSums
from mgrpo.training.learner_ranks import Learner
from mgrpo.training.progress import TrainProgress
from mgrpo.training.stop_signals import StopSignals
from mgrpo.types import Completion, Problem, Replayed
from rewards.failures import check_failed_fraction


class Engines(Protocol):
    """The interface of a run's engines; `cluster.fleet.in_process` has the light twin of
    `Fleet`."""

    def run(self, work: Coroutine[Any, Any, Any], *, counted: bool = True) -> Any:
        """Run work that samples, with health checks of the engines meanwhile."""
        ...

    def offload_engines(self) -> None:
        """Offload engines from GPUs that they share with the learner."""
        ...

    def poll(self) -> None:
        """Run the engines' health checks; never blocks."""
        ...

    def broadcast(self, policy_version: int) -> SyncReport:
        """The learner's weights to every engine, verified."""
        ...

    def close_step(self, sums: MetricSums) -> None:
        """Add the engines' metrics of the step."""
        ...


class RunWorkers:
    """The workers of a run.

    Args:
        config: the recipe.
        rollout: samples; its layers and temperature are replaced by those of each step's phase.
        policy_version: optimizer steps that the learner has taken.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        rollout: Rollout,
        engines: Engines,
        learner: Learner,
        progress: TrainProgress,
        signals: StopSignals,
        policy_version: int = 0,
    ) -> None:
        self.config, self.rollout = config, rollout
        self.engines, self.learner = engines, learner
        self.progress, self.signals = progress, signals
        self.policy_version = policy_version

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
        """Sample and score some layers (None: all) for a step's problems.

        Args:
            attempts: completions of the layer before the first of `layers`.
            slots: the problems' numbers in the step, where they do not count from 0.
        """
        config = self.config.at_step(step)
        rollout = dataclasses.replace(
            self.rollout, layers=config.layers, temperature=config.sampling.temperature
        )
        layers = layers or range(1, len(self.config.layers) + 1)
        with timed(sums, "seconds/rollout"):
            completions: list[Completion] = self.engines.run(
                rollout.run(
                    step,
                    problems,
                    first_layer=layers[0],
                    last_layer=layers[-1],
                    attempts=attempts,
                    slots=slots,
                )
            )
        for number, clock in rollout.clocks.items():
            sums.add_total(f"seconds/layer{number}", clock.seconds)
        if rollout.plugins:
            sums.add_total("tokens/sampled_by_plugins", rollout.num_plugin_tokens)
        rewards = [c.reward for c in completions if c.reward is not None]
        check_failed_fraction(rewards, self.config.rewards.max_failed_fraction)
        return completions

    def update(
        self,
        step: int,
        completions: Sequence[Completion],
        sums: MetricSums,
        *,
        parents: Sequence[Completion] = (),
        replayed: Sequence[Replayed] = (),
    ) -> list[Completion]:
        """One update of the policy; the completions come back with what was decided of each."""
        # From here on the learner is ahead of the last whole step, until this one is whole.
        self.signals.hold(self.config.checkpoints.on_signal_s)
        self.progress.phase("learner · update")
        with timed(sums, "seconds/update"):
            self.engines.offload_engines()
            result = self.learner.update(
                completions, parents, step, replayed, meanwhile=self.engines.poll
            )
        self.policy_version = result.policy_version
        sums.merge(result.metrics)
        verdicts = {v.completion_id: (v.advantage, v.selected, v.reason) for v in result.verdicts}
        return with_verdicts(completions, verdicts)

    def sequence_logprobs(self, step: int, completions: Sequence[Completion]) -> list[float]:
        """[completions] log-probabilities under the policy now, in nats."""
        self.progress.phase(f"learner · log-probabilities of {len(completions)} completions")
        self.engines.offload_engines()
        return self.learner.sequence_logprobs(completions, step)

    def broadcast(self, sums: MetricSums) -> None:
        """The new weights to every engine, verified."""
        self.progress.phase("weights · broadcast and verify")
        report = self.engines.broadcast(self.policy_version)
        sums.add_total("seconds/weights", report.seconds)
        sums.add_total("weights/sync_s", report.seconds)
        if report.probe_gap_max is not None:
            sums.add("weights/probe_gap_max", report.probe_gap_max)


@contextmanager
def timed(sums: MetricSums, name: str) -> Iterator[None]:
    """Adds the seconds of a `with` block to a step's total."""
    began = time.monotonic()
    yield
    sums.add_total(name, time.monotonic() - began)
