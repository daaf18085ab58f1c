"""The life cycle of one engine's process: start, health checks, restart and end, never blocking.

`poll` advances the life cycle: granted resources get an actor, a new actor loads its model, an
unresponsive one is suspected and then ended, a dead one is requested again. The states and their
transitions are in `cluster.fleet.health`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cluster.allocations import Allocation
from cluster.engine_actor import EngineActor
from cluster.fleet.health import EngineEvent, EngineHealth, EngineState, Patience, after
from cluster.fleet.start_watch import StartWatch
from cluster.placement import Placement
from cluster.progress_board import Patience as Waiting
from cluster.progress_board import ProgressBoard
from cluster.remote import Call, RemoteActor
from mgrpo.errors import MgrpoError

BLIND_S = 10.0
"""After so long without a look, such as during an update, progress may have been overlooked."""
# (granted allocation, unique name)
StartActor = Callable[[Allocation, str], RemoteActor[EngineActor]]


@dataclass(frozen=True, slots=True)
class StateChange:
    """A change of an engine's state, for the log and the user."""

    engine: str
    before: EngineState | None  # None: the engine was just asked for
    now: EngineState
    why: str
    node: str = ""  # its address, while it has a place


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Deadlines of an engine, in seconds."""

    patience: Patience
    heartbeat_s: float
    start_s: float  # longest time without progress of loading the model
    shutdown_s: float  # longest shutdown


class EngineProcess:
    """An engine of a run, over all of its processes.

    Args:
        allocation: its resources.
        placement: grants allocations.
        start_actor: makes the engine's actor in a granted allocation, without waiting.
        timing: its deadlines.
        on_change: called with each change of state.
        board: the run's.
    """

    def __init__(
        self,
        allocation: Allocation,
        placement: Placement,
        start_actor: StartActor,
        timing: Timing,
        on_change: Callable[[StateChange], None],
        board: ProgressBoard,
    ) -> None:
        self.allocation, self.placement = allocation, placement
        self.start_actor, self.timing, self.on_change = start_actor, timing, on_change
        self.board = board
        self.health = EngineHealth.starting(time.monotonic())
        self.actor: RemoteActor[EngineActor] | None = None
        self.loading: Call[str] | None = None
        self.load_wait: Waiting  # since there is an actor
        self.heartbeat: Call[None] | None = None
        self.next_heartbeat = 0.0
        self.stopping: Call[None] | None = None
        self.node = ""
        self.num_actors = 0
        self.was_released = False
        self.last_words = ""  # why it was last lost
        self.moved_at = time.monotonic()  # when it last came closer to work, or was lost
        self.looked_at = self.moved_at  # when its loading was last looked at
        on_change(StateChange(self.name, None, self.state, "asked for"))

    @property
    def name(self) -> str:
        return self.allocation.name

    @property
    def state(self) -> EngineState:
        return self.health.state

    def notice(self, event: EngineEvent, why: str) -> None:
        """Apply an event; report a change of state."""
        before = self.health.state
        self.health = after(self.health, event, time.monotonic(), self.timing.patience)
        if self.health.state is not before:
            self.moved_at = time.monotonic()
            self.on_change(StateChange(self.name, before, self.health.state, why, self.node))

    # --- the life of one process ---

    def poll(self) -> None:
        """Advance the life cycle. Never blocks, never raises for the engine's failures."""
        if self.health.is_coming:
            self.bring_up()
        elif self.health.is_alive:
            self.listen()
        if self.state is EngineState.DEAD:
            self.restart()
        if self.state is EngineState.GONE:
            self.clear_away()

    def bring_up(self) -> None:
        """Get resources, then an actor, then load the model."""
        if self.actor is None:
            place = self.allocation
            if self.placement.is_granted(place) and self.placement.nodes_are_known(place):
                self.make_actor()
            return
        assert self.loading is not None, "a new actor loads its model at once"
        if self.loading.is_done():
            self.finish_loading()
            return
        looked_at, self.looked_at = self.looked_at, time.monotonic()
        if self.looked_at - looked_at > BLIND_S:
            self.load_wait.renew()
        is_late = self.load_wait.left_s() <= 0
        self.moved_at = self.load_wait.renewed_at
        if is_late:
            self.lose(
                f"did not load its model: {self.timing.start_s:g} s without progress "
                f"(cluster.deadlines.engine_start_s). {self.load_wait.detail}"
            )

    def make_actor(self) -> RemoteActor[EngineActor]:
        """Start the process and the loading; its resources must have been granted."""
        suffix = f".restart{self.num_actors}" if self.num_actors else ""
        self.num_actors += 1
        self.moved_at = time.monotonic()
        self.node = self.placement.node_of(self.allocation)
        self.actor = self.start_actor(self.allocation, self.name + suffix)
        self.looked_at = self.moved_at
        self.loading = self.actor.submit(EngineActor.start)
        self.load_wait = Waiting(self.timing.start_s, StartWatch([self.actor], self.board))
        return self.actor

    def finish_loading(self) -> None:
        assert self.loading is not None, "called when loading is done"
        try:
            self.loading.outcome()
        except MgrpoError as error:
            self.lose(str(error))
        else:
            self.loading = None
            self.notice(EngineEvent.LOADED, "model loaded")

    def listen(self) -> None:
        """Run the periodic health check."""
        assert self.actor is not None, "an engine that is alive has an actor"
        now = time.monotonic()
        if self.heartbeat is None:
            if now >= self.next_heartbeat:
                self.heartbeat = self.actor.submit(EngineActor.check_health)
                self.notice(EngineEvent.ASKED, "asked")
                self.next_heartbeat = now + self.timing.heartbeat_s
            return
        if not self.heartbeat.is_done():
            self.last_words = f"no answer for {now - self.health.quiet_since:.0f} s"
            self.notice(EngineEvent.SILENT, self.last_words)
            return
        heartbeat, self.heartbeat = self.heartbeat, None
        try:
            heartbeat.outcome()
        except MgrpoError as error:
            self.lose(str(error))
        else:
            self.notice(EngineEvent.ANSWERED, "answers again")

    def lose(self, why: str) -> None:
        """The process is gone, or must be ended."""
        self.last_words = why
        self.notice(EngineEvent.DIED, why)

    def restart(self) -> None:
        """End what is left of a dead engine, and start it again where it was.

        It stays dead until its node has answered, or is known to be dead: Ray would start it on a
        node that stands still for minutes. Where a node is lost, its resources are requested again.
        """
        self.end_actor()
        patience = self.timing.patience
        again = self.health.may_restart(time.monotonic(), patience)
        if again and not self.placement.nodes_are_known(self.allocation):
            return
        stays = again and self.placement.is_whole(self.allocation)
        if not stays:
            self.placement.give_back(self.allocation)
            self.node = ""
        used_up = f"its {patience.max_restarts} restarts (cluster.health.max_restarts) are used up"
        if patience.max_restarts == 0:
            used_up = "is not restarted"
        self.notice(EngineEvent.RESTART, "asked for again" if again else used_up)
        if stays:
            self.make_actor()
        elif self.health.is_coming:
            self.placement.ask(self.allocation, f"{self.name}.restart{self.num_actors}")

    # --- the end ---

    def release(self, why: str) -> None:
        """Shut it down; `poll` removes what is left."""
        self.was_released = True
        self.notice(EngineEvent.RELEASE, why)
        if self.actor is not None and self.stopping is None:
            self.stopping = self.actor.submit(EngineActor.stop)

    def clear_away(self) -> None:
        """Release the resources once the engine has stopped, or after its shutdown deadline."""
        stopping = self.stopping
        if stopping and not stopping.is_done() and stopping.seconds < self.timing.shutdown_s:
            return
        self.stopping = None
        self.end_actor()
        self.placement.give_back(self.allocation)

    @property
    def has_left(self) -> bool:
        """It was released, and nothing of it is left."""
        return self.was_released and self.actor is None

    def end_actor(self) -> None:
        if self.actor is not None:
            self.actor.kill()
        self.actor = self.loading = self.heartbeat = None
