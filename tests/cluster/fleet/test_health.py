"""The engine's states, walked through by hand."""

from __future__ import annotations

import itertools

import pytest

from cluster.fleet.health import EngineEvent, EngineHealth, EngineState, Patience, after

PATIENCE = Patience(suspect_after_s=30, dead_after_s=120, max_restarts=2, restart_window_s=3600)


def walk(*events: tuple[float, EngineEvent], health: EngineHealth | None = None) -> EngineHealth:
    health = health or EngineHealth.starting(0.0)
    for now, event in events:
        health = after(health, event, now, PATIENCE)
    return health


HEALTHY = walk((40.0, EngineEvent.LOADED), (50.0, EngineEvent.SYNCED))


def test_a_new_engine_is_stale_when_loaded_and_healthy_only_after_a_verified_broadcast() -> None:
    loaded = walk((40.0, EngineEvent.LOADED))
    assert (loaded.state, loaded.has_weights, loaded.since) == (EngineState.STALE, False, 40.0)
    assert (HEALTHY.state, HEALTHY.has_weights, HEALTHY.since) == (EngineState.HEALTHY, True, 50.0)


def test_silence_makes_a_suspect_and_then_a_dead_engine() -> None:
    states = [
        walk((now, EngineEvent.SILENT), health=HEALTHY).state for now in (79.9, 80.0, 169.9, 170.0)
    ]
    assert states == [
        EngineState.HEALTHY,  # 29.9 s after the broadcast at 50 s, the last sign of life
        EngineState.SUSPECT,
        EngineState.SUSPECT,
        EngineState.DEAD,
    ]


def test_a_suspect_that_answers_goes_back_to_work() -> None:
    health = walk((80.0, EngineEvent.SILENT), (85.0, EngineEvent.ANSWERED), health=HEALTHY)
    assert (health.state, health.quiet_since) == (EngineState.HEALTHY, 85.0)
    assert walk((114.0, EngineEvent.SILENT), health=health).state is EngineState.HEALTHY


def test_a_pause_in_the_asking_is_not_the_engine_s_silence() -> None:
    asked = walk((500.0, EngineEvent.ASKED), health=HEALTHY)  # nobody asked since 50 s
    assert walk((501.0, EngineEvent.SILENT), health=asked).state is EngineState.HEALTHY
    assert walk((530.0, EngineEvent.SILENT), health=asked).state is EngineState.SUSPECT


def test_a_suspect_that_missed_a_broadcast_comes_back_stale() -> None:
    missed = walk((80.0, EngineEvent.SILENT), (82.0, EngineEvent.PASSED_OVER), health=HEALTHY)
    assert missed.state is EngineState.SUSPECT and not missed.can_join_broadcast
    assert walk((85.0, EngineEvent.ANSWERED), health=missed).state is EngineState.STALE


def test_an_unacknowledged_update_makes_a_healthy_engine_stale_until_the_next_whole_one() -> None:
    unsure = walk((60.0, EngineEvent.PASSED_OVER), health=HEALTHY)
    assert (unsure.state, unsure.has_weights) == (EngineState.STALE, False)
    assert walk((61.0, EngineEvent.ANSWERED), health=unsure).state is EngineState.STALE
    assert walk((65.0, EngineEvent.SYNCED), health=unsure).state is EngineState.HEALTHY


def test_a_dead_engine_starts_again_and_has_lost_its_weights() -> None:
    died = walk((60.0, EngineEvent.DIED), health=HEALTHY)
    assert (died.state, died.has_weights) == (EngineState.DEAD, False)
    again = walk((61.0, EngineEvent.RESTART), health=died)
    assert (again.state, again.restarts) == (EngineState.RESTARTING, (61.0,))
    assert walk((99.0, EngineEvent.LOADED), health=again).state is EngineState.STALE


def test_an_answer_from_the_dead_and_a_broadcast_it_missed_do_not_revive_it() -> None:
    died = walk((60.0, EngineEvent.DIED), health=HEALTHY)
    for event in (EngineEvent.ANSWERED, EngineEvent.SYNCED, EngineEvent.LOADED):
        assert walk((61.0, event), health=died).state is EngineState.DEAD


def test_restarts_are_bounded_within_a_window() -> None:
    events = []
    for died_at in (100.0, 200.0):
        events += [(died_at, EngineEvent.DIED), (died_at + 1, EngineEvent.RESTART)]
    twice = walk(*events, health=HEALTHY)
    assert twice.restarts == (101.0, 201.0)
    soon = walk((300.0, EngineEvent.DIED), (301.0, EngineEvent.RESTART), health=twice)
    assert soon.state is EngineState.GONE
    later = walk((3700.0, EngineEvent.DIED), (3701.0, EngineEvent.RESTART), health=twice)
    assert later.state is EngineState.RESTARTING  # the restart at 101 s is 3600 s ago: forgotten


def test_only_the_dead_are_restarted() -> None:
    assert walk((60.0, EngineEvent.RESTART), health=HEALTHY) == HEALTHY


@pytest.mark.parametrize("event", list(EngineEvent))
def test_a_released_engine_stays_gone(event: EngineEvent) -> None:
    gone = walk((60.0, EngineEvent.RELEASE), health=HEALTHY)
    assert gone.state is EngineState.GONE
    assert walk((61.0, event), health=gone) == gone


def test_an_engine_can_only_be_healthy_with_verified_weights() -> None:
    """Every walk of four events after loading: who is HEALTHY holds the weights."""
    for events in itertools.product(EngineEvent, repeat=4):
        health = walk((0.0, EngineEvent.LOADED))
        for now, event in enumerate(events):
            before = health
            health = after(health, event, 50.0 * now, PATIENCE)
            if health.state is EngineState.HEALTHY:
                assert health.has_weights, events
            if health.has_weights and not before.has_weights:
                assert event is EngineEvent.SYNCED, events
