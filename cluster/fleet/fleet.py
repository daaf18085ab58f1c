"""The engine pools of a run: scheduling, health checks, restarts, weight sync, autoscaling.

One thread does it all: while a rollout runs, beside it in the same event loop; while the learner
works, between two looks at it; and in full before each broadcast. So no lock is needed, and a
broadcast in the middle of a rollout never meets an update.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence

from cluster.allocations import PlacementRecipe, Pool, engine_allocation
from cluster.engine_actor import EngineActor
from cluster.fleet.delivery import WeightDelivery
from cluster.fleet.elastic import Decision, Streak, decide
from cluster.fleet.engine_log import EngineLog, sentence
from cluster.fleet.engine_process import EngineProcess, StartActor, StateChange, Timing
from cluster.fleet.fleet_metrics import FleetCounts, busy_fractions, pool_load, state_counts
from cluster.fleet.health import EngineEvent, EngineState, Patience
from cluster.fleet.leases import Choice, Engine, Gate, Result, SamplingLoop
from cluster.fleet.remote_engine import RemoteEngine
from cluster.fleet.start_watch import StartWatch
from cluster.placement import Placement
from cluster.progress_board import ProgressBoard
from cluster.remote import RemoteActor, wait_for
from cluster.weight_sync.broadcast import SyncReport, WeightBroadcaster
from mgrpo.errors import ActorDiedError, DeadlineError, MgrpoError, WeightSyncError, task_group
from mgrpo.metric_sums import MetricSums

LOOK_S = 0.25  # between two looks at the engines while a rollout runs
TAKE_AGAIN_S = 0.05  # between two attempts to get an engine if there is none


class Fleet:
    """Every engine of every layer, dead or alive.

    Args:
        recipe: what decides its engines' places.
        device: cpu or cuda.
        placement: holds the places of the engines that the run begins with.
        start_actor: makes an engine's actor in a granted place.
        log: receives each change of an engine's state.
        note: reports important changes to the user.
        board: is told of tokens, requests and changes.
    """

    def __init__(
        self,
        recipe: PlacementRecipe,
        device: str,
        placement: Placement,
        start_actor: StartActor,
        *,
        log: EngineLog,
        note: Callable[[str], None],
        board: ProgressBoard | None = None,
    ) -> None:
        self.board = board or ProgressBoard()
        self.recipe, self.device, self.placement = recipe, device, placement
        self.start_actor, self.log, self.note = start_actor, log, note
        cluster = recipe.cluster
        self.health, self.deadlines = cluster.health, cluster.deadlines
        self.max_resends = self.health.max_resends
        self.timing = Timing(
            patience=Patience(
                self.health.suspect_after_s,
                self.health.dead_after_s,
                # One that shares its GPU would have to load while the learner uses it.
                0 if cluster.takes_turns else self.health.max_restarts,
                self.health.restart_window_s,
            ),
            heartbeat_s=self.health.heartbeat_s,
            start_s=self.deadlines.engine_start_s,
            shutdown_s=self.deadlines.shutdown_s,
        )
        self.pools = recipe.pools
        self.members: dict[str, list[EngineProcess]] = {pool.name: [] for pool in self.pools}
        # Ever made, by pool: an allocation's name is used once.
        self.num_allocations = Counter[str]()
        self.streaks = {pool.name: Streak() for pool in self.pools}
        self.workers: dict[str, RemoteEngine] = {}
        self.waiting = Counter[str]()  # requests that wait for an engine, by pool
        self.counts = FleetCounts()
        self.delivery: WeightDelivery | None = None
        self.serves_loaded_weights = False
        self.policy_version = 0
        self.is_up = False
        self.loop, self.gate = SamplingLoop(), Gate()

    # --- members ---

    @property
    def engines(self) -> list[EngineProcess]:
        return [engine for pool in self.pools for engine in self.members[pool.name]]

    @property
    def actors(self) -> list[RemoteActor[EngineActor]]:
        """Of the engines that have a process."""
        return [engine.actor for engine in self.engines if engine.actor is not None]

    @property
    def broadcaster(self) -> WeightBroadcaster:
        """The weight delivery; only with a learner."""
        assert self.delivery is not None, "connect() comes first"
        return self.delivery.broadcaster

    def pool_of(self, layer: int) -> Pool:
        return next(pool for pool in self.pools if layer in pool.layers)

    def in_state(self, pool: Pool, state: EngineState) -> list[EngineProcess]:
        return [engine for engine in self.members[pool.name] if engine.state is state]

    def worker(self, engine: EngineProcess) -> RemoteEngine:
        """The rollout's view of an engine's present process."""
        assert engine.actor is not None, "only engines with a process work"
        worker = self.workers.get(engine.name)
        if worker is None or worker.actor is not engine.actor:
            deadline_s = self.deadlines.generate_s
            worker = self.workers[engine.name] = RemoteEngine(
                engine.actor, deadline_s=deadline_s, board=self.board
            )
        return worker

    def add_engine(self, pool: Pool) -> EngineProcess:
        """One more engine of a pool, not placed yet."""
        index = self.num_allocations[pool.name]
        self.num_allocations[pool.name] += 1
        engine = EngineProcess(
            engine_allocation(self.recipe.engines, self.recipe.cluster, self.device, pool, index),
            self.placement,
            self.start_actor,
            self.timing,
            self.changed,
            self.board,
        )
        self.members[pool.name].append(engine)
        return engine

    def changed(self, change: StateChange) -> None:
        self.log.write(change)
        self.board.did(f"{change.engine} is {change.now}")
        self.counts.count(change)
        said = sentence(change)
        if said is not None and self.is_up:
            self.note(said)

    # --- start and end ---

    def start(self) -> None:
        """Make the actors of the engines that the run begins with; they load their models."""
        for pool in self.pools:
            for _ in range(pool.count.min):
                self.add_engine(pool).make_actor()

    def wait_until_loaded(self) -> None:
        """A failure here ends the run: a start that fails at once would fail again.

        Raises:
            ModelError, ActorDiedError, DeadlineError: naming the engine.
        """
        wait_for(
            [engine.loading for engine in self.engines if engine.loading is not None],
            doing="load its model",
            deadline_s=self.deadlines.engine_start_s,
            setting="cluster.deadlines.engine_start_s",
            progress=StartWatch(self.actors, self.board),
        )
        self.poll()

    def sleep(self) -> None:
        """Offload the engines for a learner on the same GPUs; the first broadcast wakes them."""
        wait_for(
            [actor.submit(EngineActor.sleep) for actor in self.actors],
            doing="release their GPUs' memory",
            deadline_s=self.deadlines.weight_sync_s,
            setting="cluster.deadlines.weight_sync_s",
        )

    def offload_engines(self) -> None:
        """Let the learner work; engines that share its GPUs sleep until the next broadcast.

        Raises:
            WeightSyncError: all attempts failed.
            ActorDiedError, DeadlineError: of the learner.
        """
        assert self.delivery is not None, "connect() comes first"
        for _ in range(self.health.max_broadcasts):
            # Also those that are silent: a GPU that an engine keeps is not the learner's.
            holders = [engine for engine in self.engines if engine.health.is_alive]
            error = self.delivery.to_learner(holders)
            if error is None:
                return
            self.poll()
        raise WeightSyncError(
            f"{self.health.max_broadcasts} times in a row (cluster.health.max_broadcasts) engines "
            f"did not release GPU memory for the learner. The last error: {error}"
        )

    def take_gpus_back(self) -> None:
        """Reload engines that were offloaded for the learner, when it will not send new weights."""
        if self.delivery is not None and not self.broadcaster.handover.engines_can_work:
            self.broadcast(self.policy_version)

    def serve_loaded_weights(self) -> None:
        """Without a learner, engines sample with the weights that they loaded from disk."""
        self.serves_loaded_weights = True
        self.poll()
        self.is_up = True

    def connect(self, broadcaster: WeightBroadcaster, policy_version: int) -> None:
        """From now on engines hold the learner's weights; the first broadcast is made here."""
        self.delivery = WeightDelivery(broadcaster, self.health)
        broadcaster.meanwhile = self.poll
        self.broadcast(policy_version)
        self.is_up = True

    def lose_learner(self, error: MgrpoError) -> None:
        """End all sampling, and leave the weight group of a lost learner, until `connect`."""
        self.close()
        if self.delivery is not None:
            self.delivery.broadcaster.disband()
            holders = [engine for engine in self.engines if engine.health.is_alive]
            self.delivery.find_lost(holders, error)

    # --- scheduling requests ---

    def run(self, work: Coroutine[object, None, Result], *, counted: bool = True) -> Result:
        """Run work that samples, with health checks of the engines meanwhile.

        Args:
            work: uses `take`.
            counted: does its work count for the step's busy fractions?
        """
        self.take_gpus_back()
        try:
            return self.loop.run(self.beside_tending(work))
        finally:
            if not counted:
                for worker in self.workers.values():
                    worker.workload.take()

    def begin(self, work: Coroutine[object, None, Result]) -> asyncio.Task[Result]:
        """Begin work that samples; it goes on in later calls of `run`."""
        return self.loop.begin(work)

    async def drained(self) -> None:
        """Finish the running requests, and hold others back until the next broadcast."""
        await self.gate.drained(lambda: sum(one.num_inflight for one in self.workers.values()))

    def close(self) -> None:
        """Cancel what was begun; later work has a loop of its own."""
        self.loop.close()
        self.gate = Gate()

    async def beside_tending(self, work: Coroutine[object, None, Result]) -> Result:
        async with task_group() as group:
            tending = group.create_task(self.keep_tending())
            try:
                return await work
            finally:
                tending.cancel()

    async def keep_tending(self) -> None:
        while True:
            self.poll()
            self.broadcast_to_stale()
            await asyncio.sleep(LOOK_S)

    async def take(self, layer: int, choice: Choice) -> Engine:
        """A healthy engine of a layer; waits until there is one.

        Raises:
            ActorDiedError: all of the layer's engines are abandoned.
            DeadlineError: none restarted in time.
        """
        await self.gate.passed()
        pool = self.pool_of(layer)
        began = time.monotonic()
        self.waiting[pool.name] += 1
        try:
            while True:
                healthy = self.in_state(pool, EngineState.HEALTHY)
                if healthy:
                    return choice.of([self.worker(engine) for engine in healthy])
                moved_at = max(engine.moved_at for engine in self.members[pool.name])
                self.check_hope(pool, waited_s=time.monotonic() - max(began, moved_at))
                await asyncio.sleep(TAKE_AGAIN_S)
        finally:
            self.waiting[pool.name] -= 1

    def report_lost(self, engine: Engine, error: MgrpoError) -> None:
        """Record that a request was lost with its engine; the caller retries it."""
        self.counts.num_resent += 1
        for member in self.engines:
            if isinstance(engine, RemoteEngine) and member.actor is engine.actor:
                member.lose(str(error))

    def report_failed(self, engine: Engine, error: MgrpoError) -> None:
        """Record that a request failed on a healthy engine; the caller retries it."""
        self.counts.num_resent += 1
        if str(error) != self.counts.last_failed_request:  # many fail together, in the same words
            self.note(f"a request is retried: {error}")
        self.counts.last_failed_request = str(error)

    def check_hope(self, pool: Pool, *, waited_s: float) -> None:
        """Raise if a pool without a healthy engine will not get one, or not in time.

        Args:
            waited_s: since one of its engines came closer to work.
        """
        members = self.members[pool.name]
        if all(engine.state is EngineState.GONE for engine in members):
            deaths = "; ".join(f"{engine.name}: {engine.last_words}" for engine in members)
            raise ActorDiedError(
                f"No engine of {pool.name} is left, and none is restarted ({deaths}). Their "
                "logs are in the run's logs folder. If nodes are preempted often, raise "
                "cluster.health.max_restarts; the same command resumes the run."
            )
        deadline_s = self.deadlines.engine_return_s
        if waited_s > deadline_s:
            states = ", ".join(f"{engine.name} is {engine.state}" for engine in members)
            allocations = [engine.allocation for engine in members if engine.actor is None]
            raise DeadlineError(
                f"an engine of {pool.name} ({states})",
                deadline_s=deadline_s,
                setting="cluster.deadlines.engine_return_s",
                detail=self.placement.explain_wait(allocations),
            )

    # --- keeping them alive ---

    def poll(self) -> None:
        """Advance the life cycle of every engine. Never blocks."""
        for engine in self.engines:
            engine.poll()
            if self.serves_loaded_weights and engine.state is EngineState.STALE:
                engine.notice(EngineEvent.SYNCED, "holds the weights that it loaded")
        for members in self.members.values():
            members[:] = [engine for engine in members if not engine.has_left]

    def broadcast_to_stale(self) -> None:
        """Send weights to stale engines of a pool without healthy ones, during a rollout.

        Only the stale ones are in this broadcast's group.
        """
        for pool in self.pools:
            stale = self.in_state(pool, EngineState.STALE)
            healthy = self.in_state(pool, EngineState.HEALTHY)
            if self.waiting[pool.name] and stale and not healthy:
                self.counts.num_broadcasts += 1
                self.deliver(self.policy_version, stale, "received the weights during a step")

    # --- weights ---

    def broadcast(self, policy_version: int) -> SyncReport:
        """The learner's weights to every engine that can take them, verified.

        An engine that is lost during a broadcast is left out of the next attempt. One that is
        not running yet gets the weights once it runs.

        Raises:
            WeightSyncError: an engine holds other weights than were sent, or all attempts failed.
            ActorDiedError, DeadlineError: of the learner.
        """
        self.policy_version = policy_version
        self.gate.open()  # nothing runs before the broadcast returns
        self.poll()
        for engine in self.engines:
            if not engine.health.can_join_broadcast:
                engine.notice(EngineEvent.PASSED_OVER, "left out of a broadcast")
        for _ in range(self.health.max_broadcasts):
            members = [engine for engine in self.engines if engine.health.can_join_broadcast]
            if not members:
                return SyncReport(policy_version, 0.0, 0, None)
            report = self.deliver(policy_version, members, "got the weights")
            if report is not None:
                return report
        raise WeightSyncError(
            f"{self.health.max_broadcasts} broadcasts of policy version {policy_version} in a row "
            f"failed (cluster.health.max_broadcasts). The last: {self.counts.last_failure}"
        )

    def deliver(
        self, policy_version: int, members: Sequence[EngineProcess], why: str
    ) -> SyncReport | None:
        """One broadcast to some engines. None if it failed; lost engines are then marked dead."""
        assert self.delivery is not None, "connect() comes first"
        outcome = self.delivery.deliver(policy_version, members, why)
        if isinstance(outcome, SyncReport):
            return outcome
        self.counts.last_failure = str(outcome)
        self.counts.num_failed_broadcasts += 1
        self.poll()
        return None

    # --- autoscaling ---

    def close_step(self, sums: MetricSums) -> None:
        """Add the engines' metrics of the step, and let pools grow or shrink."""
        values = sums.means()
        step_s = max(values.get("seconds/step", 0.0), 1e-9)
        loads = {
            pool.name: pool_load(self.members[pool.name], self.workers, step_s)
            for pool in self.pools
        }
        fractions = busy_fractions(loads, values.get("seconds/update", 0.0) / step_s)
        for name, fraction in fractions.items():
            sums.add(f"pipeline/{name}_busy_fraction", fraction)
        for name, load in loads.items():
            sums.add(f"pipeline/{name}_inflight_mean", load.inflight_mean)
            sums.add(f"engines/{name}_working", load.num_engines)
            sums.add(f"engines/{name}_coming", load.num_coming)
        sums.merge(state_counts(self.engines))
        sums.merge(self.counts.take())
        for pool in self.pools:
            others = max(f for name, f in fractions.items() if name != pool.name)
            decision, self.streaks[pool.name] = decide(
                loads[pool.name],
                largest_other_fraction=others,
                count=pool.count,
                streak=self.streaks[pool.name],
                config=self.recipe.cluster.elastic,
            )
            self.apply_decision(pool, decision, loads[pool.name].busy_fraction)
        self.poll()

    def apply_decision(self, pool: Pool, decision: Decision, busy_fraction: float) -> None:
        if decision is Decision.GROW:
            engine = self.add_engine(pool)
            self.placement.ask(engine.allocation, engine.name)
        elif decision is Decision.SHRINK:
            engine = costs_least(self.members[pool.name])
            engine.release(
                f"{pool.name} has too little to do (busy for {busy_fraction:.0%} of the step)"
            )


def costs_least(engines: Sequence[EngineProcess]) -> EngineProcess:
    """The engine of a pool to release: one that is still starting, else one that is not
    healthy, else any; the newest of those."""
    here = [engine for engine in engines if engine.health.is_coming or engine.health.is_alive]
    newest_first = here[::-1]
    return min(
        newest_first,
        key=lambda engine: (not engine.health.is_coming, engine.state is EngineState.HEALTHY),
    )
