"""Real vLLM engines are killed in the middle of a rollout and of a broadcast, and come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from actors.engine import VllmEngine
from cluster.fleet.health import EngineState
from cluster.remote import RemoteActor
from mgrpo.metric_sums import MetricSums
from mgrpo.training.system import System, start_system
from mgrpo.types import Completion
from tests.end_to_end.conftest import recipe

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
CALL = {"deadline_s": 60.0, "setting": "a test"}


@pytest.fixture(scope="module")
def system(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    config = recipe(
        tree,
        prompts_per_step=12,
        engines={
            "shared": True,
            "num_shared_engines": 2,
            "num_threads": 1,
            "extra_args": {"worker_extension_cls": "tests.end_to_end.faults.FaultyWorker"},
        },
    )
    logs: Path = tmp_path_factory.mktemp("logs")
    with start_system(config, logs_to=logs, with_learner=True, note=print) as running:
        yield running


def actor(system: System, name: str) -> RemoteActor[Any]:
    found = next(engine.actor for engine in system.fleet.engines if engine.name == name)
    assert found is not None
    return found


def loaded_checksums(system: System) -> list[list[dict[str, str]]]:
    """SHA-256 of each tensor as loaded, per engine and worker: equal engines must agree."""
    work = "compute_weight_checksums"
    actors: list[RemoteActor[Any]] = list(system.fleet.actors)
    return [one.submit(VllmEngine.on_workers, work).result(**CALL) for one in actors]


def state(system: System, name: str) -> EngineState:
    return next(engine.state for engine in system.fleet.engines if engine.name == name)


def until(system: System, condition: Callable[[], bool], *, timeout_s: float = 400) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, [(e.name, e.state) for e in system.fleet.engines]
        system.fleet.poll()
        time.sleep(0.2)


def roll_out(system: System, *, meanwhile: Any = None) -> list[Completion]:
    async def work() -> list[Completion]:
        parts = [system.rollout.run(0, system.problems[:12])]
        if meanwhile is not None:
            parts.append(meanwhile())
        return (await asyncio.gather(*parts))[0]

    return system.fleet.run(work())


def told(completions: list[Completion]) -> list[tuple[str, list[int], float]]:
    return [
        (c.completion_id, c.token_ids.tolist(), c.reward.value) for c in completions if c.reward
    ]


def counts(system: System) -> dict[str, float]:
    sums = MetricSums()
    sums.add_total("seconds/step", 1.0)
    system.fleet.close_step(sums)
    return sums.means()


def engine_processes() -> set[int]:
    """vLLM's own processes, behind the actors."""
    processes = psutil.Process().children(recursive=True)
    return {process.pid for process in processes if "EngineCore" in " ".join(name(process))}


def name(process: psutil.Process) -> list[str]:
    try:
        return [process.name(), *process.cmdline()]
    except psutil.Error:
        return []


def test_an_engine_killed_in_a_rollout_changes_no_completion(system: System) -> None:
    system.fleet.broadcast(1)
    undisturbed = roll_out(system)
    assert {c.engine for c in undisturbed} == {"engine-0", "engine-1"}
    before = engine_processes()
    assert len(before) == 2

    async def kill() -> None:
        await asyncio.sleep(0.1)
        actor(system, "engine-0").kill()

    disturbed = roll_out(system, meanwhile=kill)
    assert told(disturbed) == told(undisturbed)  # the same ids, none missing, none twice
    found = counts(system)
    assert found["engines/deaths"] == 1 and found["engines/requests_resent"] >= 1

    until(system, lambda: state(system, "engine-0") is EngineState.STALE)
    assert {c.engine for c in roll_out(system)} == {"engine-1"}
    now = engine_processes()
    assert len(now) == 2 and len(now - before) == 1, "the dead engine left a process behind"
    report = system.fleet.broadcast(2)
    assert report.probe_gap_max is not None and report.probe_gap_max < 1e-4
    first, second = loaded_checksums(system)
    assert first == second and len(first[0]) > 10
    again = roll_out(system)
    assert {c.engine for c in again} == {"engine-0", "engine-1"}
    assert {c.oldest_version for c in again} == {2}


def test_an_engine_killed_in_a_broadcast_is_left_out_and_gets_them_later(system: System) -> None:
    groups = system.fleet.broadcaster.num_groups
    actor(system, "engine-1").submit(VllmEngine.on_workers, "die_in_next_broadcast", 1).result(
        **CALL
    )
    began = time.monotonic()
    report = system.fleet.broadcast(3)  # the second try reaches the one that is left
    assert time.monotonic() - began < 60
    assert report.probe_gap_max is not None and report.probe_gap_max < 1e-4
    assert state(system, "engine-0") is EngineState.HEALTHY
    assert actor(system, "engine-0").submit(VllmEngine.weight_version).result(**CALL) == "3"
    assert {c.engine for c in roll_out(system)} == {"engine-0"}
    found = counts(system)
    assert (found["engines/failed_broadcasts"], found["engines/deaths"]) == (1, 1)

    until(system, lambda: state(system, "engine-1") is EngineState.STALE)
    assert system.fleet.broadcast(4).probe_gap_max < 1e-4
    assert counts(system)["engines/healthy"] == 2
    assert system.fleet.broadcaster.num_groups == groups + 2
    first, second = loaded_checksums(system)
    assert first == second


def test_the_last_engines_get_weights_in_the_middle_of_a_step(system: System) -> None:
    undisturbed = roll_out(system)

    async def kill() -> None:
        await asyncio.sleep(0.1)
        for one in system.fleet.actors:
            one.kill()

    assert told(roll_out(system, meanwhile=kill)) == told(undisturbed)
    found = counts(system)
    assert found["engines/broadcasts_in_step"] >= 1 and found["engines/deaths"] == 2
