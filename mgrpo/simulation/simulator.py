"""The events of a run, and the rules of `pipeline.max_staleness_steps`.

The update of step s begins when the step is sampled, or where it streams, when the trees that are
done hold `least_tokens`. Beside it the k steps after it are sampled, as in
`SampleAhead.overlapped_step`. New weights are delivered after each update, at the time that
`pipeline.new_weights` says; checkpoints and evaluations follow.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mgrpo.config.pipeline import NewWeights
from mgrpo.simulation.engine import Group
from mgrpo.simulation.outcome import Outcome, PoolOutcome, Span, SpanKind
from mgrpo.simulation.pools import EnginePool
from mgrpo.simulation.rates import Rates
from mgrpo.simulation.workload import Tree, Workload

QUANTA_PER_COMPLETION = 64
"""Sequences end at multiples of this share of a layer's longest completion, in large runs."""
EXACT_BELOW = 1000
"""Completions per step up to which every sequence ends at its own decode step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The division of GPUs."""

    num_engines: Sequence[int]  # one pool for all layers, or one per layer
    num_ranks: int
    gpus_per_engine: int = 1
    is_colocated: bool = False  # engines and ranks have the same GPUs in turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How far sampling and learning run side by side."""

    staleness_steps: int = 0
    new_weights: NewWeights = "between_steps"
    streams: bool = False  # trees train while others of the step are sampled
    least_tokens: float = 0  # that a streamed batch of the learner holds, before the last
    microbatch_tokens: int = 8192
    checkpoint_every: int = 0  # steps; 0: none
    evaluate_every: int = 0


def simulate(
    work: Workload, layout: Layout, order: Order, rates: Rates, *, num_steps: int, seed: int = 0
) -> Outcome:
    """A run of some steps.

    Args:
        num_steps: 1 or more.
        seed: of lengths and failures.
    """
    return Simulator(work, layout, order, rates, num_steps=num_steps, seed=seed).run()


class Simulator:
    """The state of a simulated run. Times of events leave out what a lost learner rank costs, when
    everything stands still; `wall` adds it."""

    def __init__(
        self,
        work: Workload,
        layout: Layout,
        order: Order,
        rates: Rates,
        *,
        num_steps: int,
        seed: int,
    ) -> None:
        self.work, self.layout, self.order, self.rates = work, layout, order, rates
        self.num_steps, self.seed = num_steps, seed
        self.rng = np.random.default_rng((seed, 2**31))
        is_shared = len(layout.num_engines) == 1
        names = ["shared"] if is_shared else [f"layer{n + 1}" for n in range(len(work.layers))]
        self.pools = [
            EnginePool(
                name,
                rates.engine,
                num_engines=count,
                gpus_per_engine=layout.gpus_per_engine,
                quantum=quantum_of(work),
            )
            for name, count in zip(names, layout.num_engines, strict=True)
        ]
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.num_events = 0
        self.now = self.lost_s = 0.0
        self.versions: Counter[tuple[int, int]] = Counter()  # of each engine's next event
        self.spans: list[Span] = []
        self.num_open: dict[int, int] = {}  # trees that are being sampled, by step
        self.num_begun = 0  # steps whose sampling has begun
        self.num_sampled = 0  # whole steps, up to the first that is not
        self.num_updated = 0
        self.num_delivered = 0
        self.is_blocked = False  # weights, a switch, a checkpoint
        self.is_training = False
        self.training_began_s = 0.0
        self.waiting: list[Tree] = []  # for the learner, of step num_updated
        self.later: list[Tree] = []  # of steps after it
        self.trained = [0] * num_steps
        self.sampled_tokens = [0] * num_steps
        self.learner_tokens = [0.0] * num_steps
        self.ends_s: list[float] = []
        self.checkpoint_s = 0.0  # when the last one was written
        self.num_engine_losses = self.num_learner_losses = 0

    @property
    def wall(self) -> float:
        return self.now + self.lost_s

    def run(self) -> Outcome:
        self.schedule_failures()
        self.decide()
        self.settle()
        while len(self.ends_s) < self.num_steps:
            self.now, _, happen = heapq.heappop(self.events)
            happen()
            self.settle()
        return Outcome(
            pools=[
                PoolOutcome(
                    name=pool.name,
                    num_engines=len(pool.engines),
                    num_gpus=len(pool.engines) * pool.gpus_per_engine,
                    max_running=self.rates.engine.max_running,
                    course=pool.course,
                )
                for pool in self.pools
            ],
            num_ranks=self.layout.num_ranks,
            is_colocated=self.layout.is_colocated,
            staleness_steps=self.order.staleness_steps,
            spans=self.spans,
            ends_s=self.ends_s,
            sampled_tokens=self.sampled_tokens,
            learner_tokens=self.learner_tokens,
            trained_trees=self.trained,
            num_engine_losses=self.num_engine_losses,
            num_learner_losses=self.num_learner_losses,
        )

    # --- events ---------------------------------------------------------------------------------

    def at(self, time: float, happen: Callable[[], None]) -> None:
        self.num_events += 1  # equal times happen in the order in which they were planned
        heapq.heappush(self.events, (time, self.num_events, happen))

    def settle(self) -> None:
        """Plan the next event of every engine whose batch has changed."""
        for number, pool in enumerate(self.pools):
            for time, index in pool.settle(self.wall):
                self.versions[number, index] += 1
                if time < float("inf"):
                    version = self.versions[number, index]
                    self.at(time, partial(self.sequence_ends, number, index, version))

    def sequence_ends(self, number: int, index: int, version: int) -> None:
        if self.versions[number, index] != version:
            return  # the batch has changed since
        for group in self.pools[number].finish(index, self.now):
            if self.rates.score_s:
                self.at(self.now + self.rates.score_s, partial(self.group_done, group))
            else:
                self.group_done(group)

    # --- sampling -------------------------------------------------------------------------------

    def begin_sampling(self, step: int) -> None:
        self.num_begun = step + 1
        self.num_open[step] = self.work.prompts_per_step
        for slot in range(self.work.prompts_per_step):
            self.next_layer(Tree(self.work, seed=self.seed, step=step, slot=slot))

    def next_layer(self, tree: Tree) -> None:
        groups = tree.next_layer()
        tree.num_open = len(groups)
        pool = self.pools[min(tree.depth, len(self.pools) - 1)]
        for prompt_tokens, lengths in groups:
            pool.submit(Group(tree, prompt_tokens, lengths), self.now)
        if not groups:
            self.tree_done(tree)

    def group_done(self, group: Group) -> None:
        group.tree.num_open -= 1
        if group.tree.num_open == 0:
            self.next_layer(group.tree)
        if self.num_updated > self.num_delivered:
            self.decide()  # engines may have waited for this group to take new weights

    def tree_done(self, tree: Tree) -> None:
        self.sampled_tokens[tree.step] += tree.sampled
        (self.waiting if tree.step == self.num_updated else self.later).append(tree)
        self.num_open[tree.step] -= 1
        if self.num_open[tree.step] == 0:
            del self.num_open[tree.step]
            while self.num_sampled < self.num_begun and self.num_sampled not in self.num_open:
                self.num_sampled += 1
            if self.layout.is_colocated:
                self.block("switch", self.rates.switch_s, self.decide)
                return
        self.decide()

    # --- the learner ----------------------------------------------------------------------------

    def begin_training(self) -> None:
        """On all trees of the step that wait, as one batch."""
        trees, self.waiting = self.waiting, []
        step, tokens = self.num_updated, sum(tree.learner_tokens for tree in trees)
        self.learner_tokens[step] += tokens
        self.trained[step] += len(trees)
        self.is_training, self.training_began_s = True, self.wall
        is_last = self.trained[step] == self.work.prompts_per_step
        learner, ranks = self.rates.learner, self.layout.num_ranks
        passes = -(-tokens // (ranks * self.order.microbatch_tokens))
        seconds = tokens / ranks * learner.token_s + passes * learner.microbatch_s
        seconds += learner.update_s * is_last
        self.at(self.now + seconds, lambda: self.end_training(is_last))

    def end_training(self, is_last: bool) -> None:
        self.note_training()
        self.is_training = False
        if is_last:
            self.num_updated += 1
            self.waiting = [tree for tree in self.later if tree.step == self.num_updated]
            self.later = [tree for tree in self.later if tree.step != self.num_updated]
        self.decide()

    def note_training(self) -> None:
        span = Span("update", self.training_began_s, self.wall, self.num_updated)
        self.spans.append(span)

    # --- decisions ------------------------------------------------------------------------------

    def decide(self) -> None:
        """Begin everything that may begin now."""
        if self.is_blocked:
            return
        if self.num_updated > self.num_delivered:
            if self.takes_weights():
                self.deliver()
            return
        while self.num_begun < min(self.num_steps, self.num_allowed):
            self.begin_sampling(self.num_begun)
        if not self.is_training and self.is_worth_it():
            self.begin_training()

    @property
    def num_allowed(self) -> int:
        """Steps that may have begun: the next that trains, and once it is sampled those ahead."""
        is_sampled = self.num_sampled > self.num_delivered
        return self.num_delivered + 1 + self.order.staleness_steps * is_sampled

    def takes_weights(self) -> bool:
        """Whether engines may take new weights now; else their requests run out."""
        if self.order.new_weights == "in_flight":
            return True
        if self.order.new_weights == "between_steps":
            return not self.num_open
        for pool in self.pools:
            pool.is_closed = True
        return all(pool.is_drained for pool in self.pools)

    def is_worth_it(self) -> bool:
        """Whether the learner may take the trees that wait."""
        if not self.waiting:
            return False
        if self.num_sampled > self.num_updated:
            return True
        tokens = sum(tree.sampled for tree in self.waiting)
        return self.order.streams and tokens >= self.order.least_tokens

    def deliver(self) -> None:
        """The broadcast, and what a step ends with."""
        for pool in self.pools:
            pool.pause(self.now, self.wall, self.rates.weights_s)
        parts: list[tuple[SpanKind, float]] = [("weights", self.rates.weights_s)]
        if self.layout.is_colocated:
            parts.append(("switch", self.rates.switch_s))
        number = self.num_updated
        if self.order.checkpoint_every and number % self.order.checkpoint_every == 0:
            parts.append(("checkpoint", self.rates.checkpoint_s))
        if self.order.evaluate_every and number % self.order.evaluate_every == 0:
            parts.append(("evaluation", self.rates.evaluation_s))
        self.block_all(parts)

    def block_all(self, parts: Sequence[tuple[SpanKind, float]]) -> None:
        (kind, seconds), *others = parts
        if others:
            self.block(kind, seconds, lambda: self.block_all(others))
        else:
            self.block(kind, seconds, self.delivered)
        if kind == "checkpoint":
            self.checkpoint_s = self.now + seconds

    def delivered(self) -> None:
        self.num_delivered += 1
        self.ends_s.append(self.wall)
        for pool in self.pools:
            pool.resume(self.now, self.wall)
        self.decide()

    def block(self, kind: SpanKind, seconds: float, then: Callable[[], None]) -> None:
        """Nothing may begin for some seconds."""
        self.is_blocked = True
        began, step = self.wall, self.num_updated

        def end() -> None:
            self.is_blocked = False
            self.spans.append(Span(kind, began, self.wall, step))
            then()

        self.at(self.now + seconds, end)

    # --- failures -------------------------------------------------------------------------------

    def schedule_failures(self) -> None:
        rates = self.rates.failures
        num_engines = sum(len(pool.engines) for pool in self.pools)
        self.repeat(rates.engine_mtbf_h, num_engines, self.engine_lost)
        self.repeat(rates.spot_mtbf_h, -(-num_engines // rates.engines_per_node), self.node_lost)
        self.repeat(rates.learner_mtbf_h, self.layout.num_ranks, self.rank_lost)

    def repeat(self, mtbf_h: float, count: int, happen: Callable[[], None]) -> None:
        """Let something happen to any of `count` parts, at exponential times."""
        if not mtbf_h:
            return

        def again() -> None:
            happen()
            plan()

        def plan() -> None:
            self.at(self.now + self.rng.exponential(mtbf_h * 3600 / count), again)

        plan()

    def engine_lost(self) -> None:
        pool, index = self.numbered(int(self.rng.integers(sum(self.pool_sizes))))
        self.lose(pool, index, self.rates.failures.engine_recovery_s)

    def node_lost(self) -> None:
        size, total = self.rates.failures.engines_per_node, sum(self.pool_sizes)
        first = int(self.rng.integers(-(-total // size))) * size
        for number in range(first, min(first + size, total)):
            pool, index = self.numbered(number)
            self.lose(pool, index, self.rates.failures.spot_return_s)

    @property
    def pool_sizes(self) -> list[int]:
        return [len(pool.engines) for pool in self.pools]

    def numbered(self, number: int) -> tuple[EnginePool, int]:
        """An engine by its number in the run."""
        for pool in self.pools:
            if number < len(pool.engines):
                return pool, number
            number -= len(pool.engines)
        raise AssertionError("numbers are below the sum of the pools' sizes")

    def lose(self, pool: EnginePool, index: int, recovery_s: float) -> None:
        if not pool.engines[index].is_up:
            return
        self.num_engine_losses += 1
        pool.lose(index, self.now)
        self.decide()  # it may have been the last that weights waited for
        self.at(self.now + recovery_s, lambda: pool.restore(index, self.now))

    def rank_lost(self) -> None:
        """Everything since the last checkpoint is done again: as much time as it took."""
        self.num_learner_losses += 1
        seconds = self.rates.failures.learner_restart_s + max(0.0, self.now - self.checkpoint_s)
        self.spans.append(Span("lost", self.wall, self.wall + seconds, self.num_updated))
        if self.is_training:
            self.note_training()
        for pool in self.pools:
            pool.course.add(self.wall, 0, 0)
        self.lost_s += seconds
        self.training_began_s = self.wall
        for pool in self.pools:
            pool.note_course(self.wall)


def quantum_of(work: Workload) -> int:
    """Decode steps between the moments at which sequences end; 1 is exact."""
    completions, prompts = 0, work.prompts_per_step
    for layer in work.layers:
        if layer.max_parents is not None:
            prompts = min(prompts, work.prompts_per_step * layer.max_parents)
        prompts *= layer.group_size
        completions += prompts
    if completions < EXACT_BELOW:
        return 1
    return max(1, min(layer.max_tokens for layer in work.layers) // QUANTA_PER_COMPLETION)
