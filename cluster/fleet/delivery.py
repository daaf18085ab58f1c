"""Broadcasts and handovers to a set of engines, and the state of each engine after a failed one."""

from __future__ import annotations

import time
from collections.abc import Sequence

from cluster.engine_actor import EngineActor
from cluster.fleet.engine_process import EngineProcess
from cluster.fleet.health import EngineEvent
from cluster.remote import RemoteActor, wait_for
from cluster.weight_sync.broadcast import SyncReport, WeightBroadcaster
from cluster.weight_sync.engine_client import RankActor
from mgrpo.config.cluster import HealthConfig
from mgrpo.errors import LearnerError, LearnerLostError, MgrpoError, WeightSyncError


class WeightDelivery:
    """Sends broadcasts and updates the engines' states after failures."""

    def __init__(self, broadcaster: WeightBroadcaster, patience: HealthConfig) -> None:
        self.broadcaster, self.patience = broadcaster, patience

    def deliver(
        self, policy_version: int, members: Sequence[EngineProcess], why: str
    ) -> SyncReport | MgrpoError:
        """Broadcast once.

        Args:
            policy_version: the learner's.
            members: engines that can take part.
            why: reason in the engine log for the engines that received the weights.

        Returns:
            The report if it succeeded: the members are then healthy. Otherwise the error: lost
            engines are then dead, and the others stale.

        Raises:
            WeightSyncError: an engine holds other weights than were sent.
            ActorDiedError, DeadlineError: of the learner, which the run requires.
        """
        try:
            report = self.broadcaster.broadcast(policy_version, actors_of(members))
        except (WeightSyncError, LearnerError, LearnerLostError):
            raise
        except MgrpoError as error:
            self.recover(members, error)
            return error
        for engine in members:
            engine.notice(EngineEvent.SYNCED, f"{why} of version {policy_version}")
        return report

    def to_learner(self, members: Sequence[EngineProcess]) -> MgrpoError | None:
        """Let the learner compute; engines that share its GPUs are offloaded.

        Returns:
            The error, if any: lost engines are then dead, and the others stale.

        Raises:
            ActorDiedError, DeadlineError: of the learner.
        """
        try:
            self.broadcaster.handover.to_learner(actors_of(members))
        except (LearnerError, LearnerLostError):
            raise
        except MgrpoError as error:
            self.recover(members, error)
            return error
        return None

    def recover(self, members: Sequence[EngineProcess], error: MgrpoError) -> None:
        self.broadcaster.disband()
        self.check_learner(error)
        self.find_lost(members, error)

    def check_learner(self, error: MgrpoError) -> None:
        """Raise if a rank is lost, or does not leave the failed broadcast."""
        try:
            wait_for(
                [rank.submit(RankActor.meeting_point) for rank in self.broadcaster.learner],
                doing="leave a failed broadcast",
                deadline_s=self.patience.dead_after_s,
                setting="cluster.health.dead_after_s",
            )
        except MgrpoError as lost:
            raise LearnerLostError(str(lost)) from error

    def find_lost(self, members: Sequence[EngineProcess], error: MgrpoError) -> None:
        """Mark unresponsive engines dead and all others stale."""
        end = time.monotonic() + self.patience.suspect_after_s
        leaving = []
        for engine in members:
            engine.notice(EngineEvent.PASSED_OVER, f"a broadcast failed: {error}")
            # One that was found dead meanwhile may already have another process, which loads.
            if engine.actor is not None and engine.health.is_alive:
                leaving.append((engine, engine.actor.submit(EngineActor.abandon_weight_update)))
        for engine, call in leaving:
            try:
                wait_for(
                    [call],
                    doing="leave a failed broadcast",
                    deadline_s=max(0.1, end - time.monotonic()),
                    setting="cluster.health.suspect_after_s",
                )
            except MgrpoError as lost:
                engine.lose(str(lost))


def actors_of(members: Sequence[EngineProcess]) -> list[RemoteActor[EngineActor]]:
    return [engine.actor for engine in members if engine.actor is not None]
