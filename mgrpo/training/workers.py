"""Engines and learner as a step uses them: sample, update, measure, broadcast."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from actors.rollout import LayerClock, Refill, Rollout, TreeCallback, with_selections
from cluster.remote import Result
from cluster.weight_sync.broadcast import SyncReport
from mgrpo.config import MethodView
from mgrpo.config.pipeline import PipelineConfig
from mgrpo.metric_sums import MetricSums
from mgrpo.training.learner_ranks import Learner
from mgrpo.training.progress import TrainProgress
from mgrpo.training.sampling import DoneTrees, Sampling
from mgrpo.training.sources.source import Work
from mgrpo.training.stop_signals import StopSignals
from mgrpo.training.tree_feed import TreeFeed
from mgrpo.types import Completion, Problem, Replayed, Selection, UpdateResult
from rewards.failures import check_failed_fraction

LOOK_S = 1.0
"""Between two looks at whether a signal waits."""


class Engines(Protocol):
    """The interface of a run's engines; `cluster.fleet.in_process` has the light twin of
    `Fleet`."""

    def run(self, work: Coroutine[object, None, Result], *, counted: bool = True) -> Result:
        """Run work that samples, with health checks of the engines meanwhile."""
        ...

    def begin(self, work: Coroutine[object, None, Result]) -> asyncio.Task[Result]:
        """Begin work that samples; it goes on in later calls of `run`."""
        ...

    async def drained(self) -> None:
        """Finish the running requests, and hold others back until the next broadcast."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLimits:
    """Numbers of a recipe that bound a step."""

    max_failed_fraction: float  # of its answer checks; more end the run
    on_signal_s: float  # longest delay of a signal by an update, in seconds
    least_tokens: int  # fewer are not worth a pass of all ranks, while more are still to come


class RunWorkers:
    """The workers of a run.

    Args:
        method: the recipe's.
        limits: of a step.
        pipeline: how far steps are sampled ahead.
        rollout: samples; its layers and temperature are replaced by those of each step's phase.
        policy_version: optimizer steps that the learner has taken.
        streams: by step, whether trees train while others are sampled.
    """

    def __init__(
        self,
        method: MethodView,
        *,
        limits: StepLimits,
        pipeline: PipelineConfig,
        rollout: Rollout,
        engines: Engines,
        learner: Learner,
        progress: TrainProgress,
        signals: StopSignals,
        policy_version: int = 0,
        streams: Callable[[int], bool] = lambda step: False,
    ) -> None:
        self.method, self.rollout = method, rollout
        self.limits, self.pipeline = limits, pipeline
        self.engines, self.learner = engines, learner
        self.progress, self.signals = progress, signals
        self.policy_version = policy_version
        self.streams = streams

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
        """Sample and score some layers (None: all) for a step's problems.

        Args:
            attempts: completions of the layer before the first of `layers`.
            slots: the problems' numbers in the step, where they do not count from 0.
            refill: adds problems as others are done.
        """
        rollout = self.rollout_at(step)
        layers = layers or range(1, len(rollout.layers) + 1)
        with timed(sums, "seconds/rollout"):
            completions: list[Completion] = self.engines.run(
                rollout.run(
                    step,
                    problems,
                    first_layer=layers[0],
                    last_layer=layers[-1],
                    attempts=attempts,
                    slots=slots,
                    refill=refill,
                )
            )
        self.measure(rollout, completions, sums)
        return completions

    def rollout_at(self, step: int) -> Rollout:
        """With the layers and the temperature of the step's phase."""
        values = self.method.at_step(step)
        return dataclasses.replace(
            self.rollout, layers=values.layers, temperature=values.sampling.temperature
        )

    def measure(
        self, rollout: Rollout, completions: Sequence[Completion], sums: MetricSums
    ) -> None:
        """Metrics of a rollout that is done.

        Raises:
            RewardError: too many checks failed.
        """
        for number, clock in rollout.clocks.items():
            sums.add_total(f"seconds/layer{number}", clock.seconds)
            if clock.num_aborted:
                add_over_sampling(sums, f"layer{number}", clock)
            if rollout.layers[number - 1].speculation is not None:
                sums.add_total(f"layer{number}/drafted_tokens", clock.num_drafted)
                sums.add(f"layer{number}/draft_acceptance", clock.num_accepted, clock.num_drafted)
                num_steps = clock.kept_tokens - clock.num_accepted
                sums.add(f"layer{number}/tokens_per_decode_step", clock.kept_tokens, num_steps)
        if rollout.plugins:
            sums.add_total("tokens/sampled_by_plugins", rollout.num_plugin_tokens)
        rewards = [c.reward for c in completions if c.reward is not None]
        check_failed_fraction(rewards, self.limits.max_failed_fraction)

    def sample_and_update(self, step: int, work: Work, sums: MetricSums) -> list[Completion]:
        """Sample the work and make one update of it, side by side; everything that trained.

        Each time that the learner is ready it gets the trees that are complete by then. Weights
        change after the last of them.
        """
        rollout, clock = self.rollout_at(step), time.monotonic
        self.learner.begin_update(step)
        feed = TreeFeed(self.learner, step, work, least_tokens=self.least_tokens)
        began = clock()
        done = self.engines.run(feed.beside(self.sampled(rollout, step, work, feed.put)))
        self.measure(rollout, done, sums)
        self.signals.hold(self.limits.on_signal_s)
        result = self.learner.finish_update(work.replayed, meanwhile=self.engines.poll)
        rollout_s = feed.closed_at - began
        sums.add_total("seconds/rollout", rollout_s)
        sums.add_total("seconds/update", clock() - feed.closed_at)
        sums.add_total("pipeline/hidden_update_s", feed.busy_before_close_s)
        return self.updated(result, feed.selections, [*work.ready, *done], sums)

    def begin(self, step: int, work: Work) -> Sampling:
        """Begin to sample a step's work; it goes on whenever engines or learner work."""
        rollout = self.rollout_at(step)
        trees = DoneTrees(len(work.problems), self.pipeline.min_done_fraction)
        sampling = self.sampled(rollout, step, work, trees.put)
        return Sampling(rollout, self.engines.begin(sampling), trees)

    def finish(self, sampling: Sampling, sums: MetricSums) -> list[Completion]:
        """Wait for what was begun, or for enough of it (`pipeline.min_done_fraction`)."""
        with timed(sums, "pipeline/waited_s"):
            self.engines.run(sampling.settled())
        done = sampling.completions()
        sums.add_total("pipeline/dropped_problems", sampling.trees.num_missing)
        self.measure(sampling.rollout, done, sums)
        sums.add_total("seconds/rollout", sampling.rollout.seconds)
        return done

    def update_beside(self, step: int, work: Work, sums: MetricSums) -> list[Completion]:
        """One update of work that is sampled, while what was begun is being sampled.

        A signal that comes meanwhile waits for the update.
        """
        self.signals.hold(self.limits.on_signal_s)
        self.progress.phase("learner · update")
        with timed(sums, "seconds/update"):
            result = self.engines.run(
                self.learner.update_beside(work.ready, work.parents, step, work.replayed)
            )
        return self.updated(result, result.selections, work.ready, sums)

    def broadcast_beside(self, begun: Sequence[Sampling], sums: MetricSums) -> None:
        """The new weights to engines that sample, verified.

        A signal that waits for the end of the step ends the sampling.
        """
        if self.pipeline.new_weights != "in_flight" and begun:
            with timed(sums, "pipeline/waited_s"):
                self.engines.run(self.ready_for_weights(begun))
        for one in begun:
            one.check()
        self.broadcast(sums)

    async def ready_for_weights(self, begun: Sequence[Sampling]) -> None:
        """Wait until engines may take new weights; end the sampling where a signal waits."""
        if self.pipeline.new_weights == "between_groups":
            waiting = {asyncio.create_task(self.engines.drained())}
        else:
            waiting = {asyncio.create_task(one.settled()) for one in begun}
        while waiting:
            if self.signals.held_back is not None:
                for one in begun:
                    one.task.cancel()
            done, waiting = await asyncio.wait(waiting, timeout=LOOK_S)
            for ended in done:
                ended.result()

    async def sampled(
        self,
        rollout: Rollout,
        step: int,
        work: Work,
        on_tree: TreeCallback,
    ) -> list[Completion]:
        """Everything that the work samples."""
        layers = work.layers or range(1, len(rollout.layers) + 1)
        return await rollout.run(
            step,
            work.problems,
            first_layer=layers[0],
            last_layer=layers[-1],
            attempts=[*work.ready, *work.parents],
            slots=work.slots,
            on_tree=on_tree,
        )

    @property
    def least_tokens(self) -> int:
        return self.limits.least_tokens

    def updated(
        self,
        result: UpdateResult,
        selections: Sequence[Selection],
        completions: Sequence[Completion],
        sums: MetricSums,
    ) -> list[Completion]:
        """After an update: the completions with what was decided of each."""
        self.policy_version = result.policy_version
        sums.merge(result.metrics)
        for text in result.warnings:
            self.progress.warn(text)
        return with_selections(
            completions, {v.completion_id: (v.advantage, v.selected, v.reason) for v in selections}
        )

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
        self.signals.hold(self.limits.on_signal_s)
        self.progress.phase("learner · update")
        with timed(sums, "seconds/update"):
            self.engines.offload_engines()
            result = self.learner.update(
                completions, parents, step, replayed, meanwhile=self.engines.poll
            )
        return self.updated(result, result.selections, completions, sums)

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
        if report.num_bytes:
            sums.add("weights/sync_gb_per_s", report.num_bytes / 1e9 / report.seconds)
        if report.probe_gap_max is not None:
            sums.add("weights/probe_gap_max", report.probe_gap_max)


def add_over_sampling(sums: MetricSums, layer: str, clock: LayerClock) -> None:
    """What aborted completions cost, and how much shorter the kept ones are for it."""
    num_tokens = clock.kept_tokens + clock.aborted_tokens
    num_begun = clock.num_kept + clock.num_aborted
    sums.add(f"{layer}/aborted_tokens_fraction", clock.aborted_tokens, num_tokens)
    sums.add(
        f"{layer}/kept_length_ratio", clock.kept_tokens * num_begun, num_tokens * clock.num_kept
    )


@contextmanager
def timed(sums: MetricSums, name: str) -> Iterator[None]:
    """Adds the seconds of a `with` block to a step's total."""
    began = time.monotonic()
    yield
    sums.add_total(name, time.monotonic() - began)
