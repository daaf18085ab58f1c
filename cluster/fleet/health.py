"""The state machine of an engine: pure, without Ray, clock or side effects.

    HEALTHY ──silent─▶ SUSPECT ──silent─▶ DEAD ──▶ RESTARTING ──loaded─▶ STALE ──synced─▶ HEALTHY
       ▲                  │                 │ restarts used up             ▲
       └────answered──────┘                 ▼                   STARTING ──┘ (a new engine)
                                          GONE

Only a HEALTHY engine gets requests. A SUSPECT one gets none until it answers or is declared dead.
A STALE one runs with outdated weights: it just loaded the model from disk, or was not part of a
broadcast. Only a complete, verified broadcast leads out of STALE.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class EngineState(StrEnum):
    """The state of an engine."""

    HEALTHY = "healthy"  # answers, and holds the learner's weights
    SUSPECT = "suspect"  # has not answered for a while
    DEAD = "dead"  # its process is gone, or was ended because it did not answer
    STARTING = "starting"  # new: waits for resources, or loads its model
    RESTARTING = "restarting"  # the same, after it died
    STALE = "stale"  # runs, but with other weights than the learner's
    GONE = "gone"  # released, or died too often: it is not restarted


class EngineEvent(StrEnum):
    """An observed event of an engine."""

    ASKED = "asked"  # a health check was sent; the one before was answered
    ANSWERED = "answered"
    SILENT = "silent"  # still no answer at this time
    DIED = "died"
    RESTART = "restart"
    LOADED = "loaded"
    SYNCED = "synced"  # took part in a complete, verified broadcast
    PASSED_OVER = "passed over"  # weights changed, or may have, without a verified arrival
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Patience:
    """Health-check timeouts and restart budget.

    Example: an engine that died at 0 s, 100 s and 200 s has used up max_restarts = 3 of a window
    of 3600 s; a fourth death before 3600 s is its last.
    """

    suspect_after_s: float
    dead_after_s: float
    max_restarts: int
    restart_window_s: float


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """One engine's state and the data of its transitions. All times in seconds of one clock."""

    state: EngineState
    since: float  # when the state began
    quiet_since: float  # when it last answered, or was asked after a pause in the asking
    has_weights: bool = False  # the learner's current ones, verified
    restarts: tuple[float, ...] = ()  # when; oldest first

    @classmethod
    def starting(cls, now: float) -> EngineHealth:
        """The state of an engine that was just requested."""
        return cls(EngineState.STARTING, now, now)

    @property
    def is_alive(self) -> bool:
        """Has a process that runs its model, as far as is known."""
        return self.state in (EngineState.HEALTHY, EngineState.SUSPECT, EngineState.STALE)

    @property
    def is_coming(self) -> bool:
        """Waits for resources, or loads its model."""
        return self.state in (EngineState.STARTING, EngineState.RESTARTING)

    @property
    def can_join_broadcast(self) -> bool:
        """A suspect is excluded: waiting for it would delay all the others."""
        return self.state in (EngineState.HEALTHY, EngineState.STALE)

    def may_restart(self, now: float, patience: Patience) -> bool:
        recent = [at for at in self.restarts if now - at < patience.restart_window_s]
        return len(recent) < patience.max_restarts


def after(health: EngineHealth, event: EngineEvent, now: float, patience: Patience) -> EngineHealth:
    """The engine's health after an event. Repeated events change nothing.

    Args:
        health: before.
        event: the observation.
        now: when.
        patience: the bounds.
    """
    if health.state is EngineState.GONE:
        return health
    match event:
        case EngineEvent.RELEASE:
            return moved(health, EngineState.GONE, now, has_weights=False)
        case EngineEvent.DIED:
            return died(health, now)
        case EngineEvent.ASKED:
            return replace(health, quiet_since=now) if health.is_alive else health
        case EngineEvent.ANSWERED:
            return answered(health, now)
        case EngineEvent.SILENT:
            return silent(health, now, patience)
        case EngineEvent.RESTART:
            return restarted(health, now, patience)
        case EngineEvent.LOADED if health.is_coming:
            return replace(moved(health, EngineState.STALE, now), quiet_since=now)
        case EngineEvent.SYNCED if health.is_alive:
            fit = moved(health, EngineState.HEALTHY, now, has_weights=True)
            return replace(fit, quiet_since=now)
        case EngineEvent.PASSED_OVER if health.state is EngineState.HEALTHY:
            return moved(health, EngineState.STALE, now, has_weights=False)
        case EngineEvent.PASSED_OVER:
            return replace(health, has_weights=False)
        case _:
            return health


def moved(
    health: EngineHealth, state: EngineState, now: float, *, has_weights: bool | None = None
) -> EngineHealth:
    """Change the state; the same state keeps its start time."""
    weights = health.has_weights if has_weights is None else has_weights
    since = health.since if state is health.state else now
    return replace(health, state=state, since=since, has_weights=weights)


def died(health: EngineHealth, now: float) -> EngineHealth:
    return moved(health, EngineState.DEAD, now, has_weights=False)


def answered(health: EngineHealth, now: float) -> EngineHealth:
    """A suspect that answers returns to its former state; an answer after death is ignored."""
    if not health.is_alive:
        return health
    heard = replace(health, quiet_since=now)
    if health.state is not EngineState.SUSPECT:
        return heard
    return moved(heard, EngineState.HEALTHY if health.has_weights else EngineState.STALE, now)


def silent(health: EngineHealth, now: float, patience: Patience) -> EngineHealth:
    """Suspect first, dead later, timed from the last answer or the first check since."""
    if not health.is_alive:
        return health
    silence_s = now - health.quiet_since
    if silence_s >= patience.dead_after_s:
        return died(health, now)
    if silence_s >= patience.suspect_after_s:
        return moved(health, EngineState.SUSPECT, now)
    return health


def restarted(health: EngineHealth, now: float, patience: Patience) -> EngineHealth:
    if health.state is not EngineState.DEAD:
        return health
    if not health.may_restart(now, patience):
        return moved(health, EngineState.GONE, now)
    return EngineHealth(EngineState.RESTARTING, now, now, restarts=(*health.restarts, now))
