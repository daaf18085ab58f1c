"""Every walk of an engine through its states, with the properties that the fleet relies on.

1. Only a verified broadcast gives an engine the learner's weights.
2. An engine that gets requests holds them.
3. An engine that was lost comes back by a restart and a broadcast alone.
4. One that is gone stays gone.
5. No more restarts within a window than allowed.
6. Silence is measured from the last sign of life: less than the bound harms nobody.
7. The same event at the same time changes nothing the second time.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cluster.fleet.health import EngineEvent, EngineHealth, EngineState, Patience, after

PATIENCE = Patience(suspect_after_s=20, dead_after_s=60, max_restarts=2, restart_window_s=600)
LOST = (EngineState.DEAD, EngineState.RESTARTING)


class EngineMachine(RuleBasedStateMachine):
    """Any events at any times, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.health = EngineHealth.starting(self.now)
        self.heard_at = self.now  # a sign of life, or the question that it did not answer

    @rule(
        event=st.sampled_from([one for one in EngineEvent if one is not EngineEvent.RELEASE]),
        passed_s=st.sampled_from([0.0, 1.0, 19.0, 20.0, 59.0, 60.0, 700.0]),
    )
    def happens(self, event: EngineEvent, passed_s: float) -> None:
        self.now += passed_s
        self.take(event)

    @rule()
    def is_released(self) -> None:
        self.take(EngineEvent.RELEASE)

    def take(self, event: EngineEvent) -> None:
        before, self.health = self.health, after(self.health, event, self.now, PATIENCE)
        now = self.health
        if now.has_weights and not before.has_weights:  # 1
            assert event is EngineEvent.SYNCED and before.is_alive
        if before.state in LOST and now.is_alive:  # 3
            assert event is EngineEvent.LOADED and now.state is EngineState.STALE
        if before.state is EngineState.DEAD and now.state is not EngineState.DEAD:
            assert event in (EngineEvent.RESTART, EngineEvent.RELEASE)
        if before.state is EngineState.GONE:  # 4
            assert now == before
        if event is EngineEvent.SILENT and before.is_alive:  # 6
            silent_s = self.now - before.quiet_since
            assert (now.state is EngineState.DEAD) == (silent_s >= PATIENCE.dead_after_s)
            if now.state is not before.state:
                assert silent_s >= PATIENCE.suspect_after_s
        assert after(now, event, self.now, PATIENCE) == now  # 7

    @invariant()
    def who_gets_requests_holds_the_weights(self) -> None:
        if self.health.state is EngineState.HEALTHY:  # 2
            assert self.health.has_weights
        assert self.health.since <= self.now and self.health.quiet_since <= self.now

    @invariant()
    def restarts_are_bounded(self) -> None:
        for restart in self.health.restarts:  # 5
            window = [at for at in self.health.restarts if 0 <= restart - at < 600]
            assert len(window) <= PATIENCE.max_restarts


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(max_examples=150, stateful_step_count=40)
