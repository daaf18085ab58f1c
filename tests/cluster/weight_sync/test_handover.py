"""In which order GPUs pass between engines and learner; the parts are only asked, not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.weight_sync.handover import SeparateGpus, SharedGpus
from tests.cluster.asked import AskedActor

ENGINES: Any = [AskedActor("engine")]
LEARNER: Any = [AskedActor("rank")]


class Notes:
    """Notes what is asked of whom."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, calls: Sequence[Any]) -> list[Any]:
        self.calls += [" ".join([one.actor.name, one.method, *one.args]) for one in calls]
        return [None for _ in calls]

    def take(self) -> list[str]:
        calls, self.calls = self.calls, []
        return calls


SENDING = ["rank leave_gpu optimizer", "engine wake weights"]
SAMPLING = ["rank leave_gpu weights", "engine wake kv_cache", "engine resume"]


def test_on_gpus_of_their_own_engines_only_pause_while_weights_travel() -> None:
    asked = Notes()
    handover = SeparateGpus(asked)
    handover.to_learner(ENGINES)
    handover.to_broadcast(ENGINES)
    handover.to_engines(ENGINES)
    assert asked.calls == ["engine pause", "engine resume"]
    assert handover.engines_can_work


def test_a_run_begins_with_the_learners_turn_and_a_broadcast() -> None:
    asked = Notes()
    handover = SharedGpus(asked, LEARNER)
    assert not handover.engines_can_work
    handover.to_broadcast(ENGINES)
    assert asked.take() == SENDING
    assert not handover.engines_can_work
    handover.to_engines(ENGINES)
    assert asked.take() == SAMPLING
    assert handover.engines_can_work


def test_in_a_step_engines_sleep_before_the_learner_comes_back_and_caches_wake_last() -> None:
    asked = Notes()
    handover = SharedGpus(asked, LEARNER)
    handover.turn = "engines"
    handover.to_learner(ENGINES)
    assert asked.take() == ["engine sleep", "rank return_to_gpu"]
    handover.to_learner(ENGINES)  # a second update of the same step
    assert asked.take() == []
    handover.to_broadcast(ENGINES)
    handover.to_engines(ENGINES)
    assert asked.take() == SENDING + SAMPLING


def test_weights_that_are_sent_without_an_update_still_find_the_learner_on_its_gpu() -> None:
    asked = Notes()
    handover = SharedGpus(asked, LEARNER)
    handover.turn = "engines"
    handover.to_broadcast(ENGINES)
    assert asked.take() == ["engine sleep", "rank return_to_gpu", *SENDING]


def test_a_broadcast_that_is_made_again_moves_nothing_twice() -> None:
    asked = Notes()
    handover = SharedGpus(asked, LEARNER)
    handover.to_broadcast(ENGINES)
    asked.take()
    handover.to_broadcast(ENGINES)  # the first one failed
    assert asked.take() == []


def test_after_a_failed_broadcast_the_learner_gets_everything_back() -> None:
    asked = Notes()
    handover = SharedGpus(asked, LEARNER)
    handover.to_broadcast(ENGINES)
    asked.take()
    handover.to_learner(ENGINES)
    assert asked.take() == ["engine sleep", "rank return_to_gpu"]
