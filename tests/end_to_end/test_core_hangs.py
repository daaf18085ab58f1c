"""vLLM's own process, or its actor, stops or dies where it hurts most: found in seconds.

Light twins: tests/actors/test_core_watch.py, tests/actors/test_engine_requests.py.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.chaos.processes import kind_of, title_of
from cluster.fleet.engine_process import EngineProcess
from cluster.fleet.health import EngineState
from mgrpo.training.system import System, start_system
from tests.end_to_end.conftest import recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
DEAD_AFTER_S = 30.0
"""A rank that imports torch on a busy machine does not answer for longer than 6 s."""
LONG_S = 240.0
"""Deadlines that would find it otherwise."""


@pytest.fixture(scope="module")
def system(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    health = {"heartbeat_s": 1, "suspect_after_s": 10, "dead_after_s": DEAD_AFTER_S}
    deadlines = {"weight_sync_s": LONG_S, "generate_s": LONG_S}
    config = recipe(
        tree,
        prompts_per_step=12,
        engines={"shared": True, "num_shared_engines": 2, "num_threads": 1},
        cluster={**tree["cluster"], "health": health, "deadlines": deadlines},
    )
    logs: Path = tmp_path_factory.mktemp("logs")
    with start_system(config, logs_to=logs, with_learner=True, note=print) as running:
        yield running


def processes(kind: str) -> list[psutil.Process]:
    """Of this run; an actor's title changes with what it does."""
    children = psutil.Process().children(recursive=True)
    return [one for one in children if kind_of(title_of(one)) == kind]


def all_healthy(system: System, version: int) -> None:
    """Wait until both engines are there again, and give them the weights."""
    end = time.monotonic() + 600
    while any(not engine.health.can_join_broadcast for engine in system.fleet.engines):
        assert time.monotonic() < end, [(e.name, e.state) for e in system.fleet.engines]
        system.fleet.poll()
        time.sleep(0.2)
    system.fleet.broadcast(version)
    assert all(engine.state is EngineState.HEALTHY for engine in system.fleet.engines)


def strike(victim: psutil.Process, fault: signal.Signals, after_s: float) -> threading.Timer:
    timer = threading.Timer(after_s, lambda: os.kill(victim.pid, fault))
    timer.start()
    return timer


@pytest.mark.parametrize("after_s", [0.0, 0.05])
def test_a_core_that_dies_as_a_broadcast_begins_is_noticed_at_once(
    system: System, after_s: float
) -> None:
    all_healthy(system, 1)
    timer = strike(processes("EngineCore")[0], signal.SIGKILL, after_s)
    began = time.monotonic()
    system.fleet.broadcast(2)
    took_s = time.monotonic() - began
    timer.join()
    print(f"killed {after_s} s after the beginning of a broadcast, which took {took_s:.1f} s")
    assert took_s < LONG_S / 4


@pytest.mark.parametrize("kind", ["EngineCore", "engine actor"])
def test_a_process_that_is_stopped_in_a_broadcast_is_lost_in_seconds(
    system: System, kind: str
) -> None:
    all_healthy(system, 3)
    victim = processes(kind)[0]
    victim.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    system.fleet.broadcast(4)
    took_s = time.monotonic() - began
    print(f"{kind} stopped: the broadcast took {took_s:.1f} s")
    assert took_s < LONG_S / 2


def test_a_core_that_is_stopped_in_a_rollout_is_lost_in_seconds(system: System) -> None:
    all_healthy(system, 5)
    core = processes("EngineCore")[0]
    stopped_at = 0.0

    async def stop() -> None:
        nonlocal stopped_at
        await asyncio.sleep(0.2)
        core.send_signal(signal.SIGSTOP)
        stopped_at = time.monotonic()

    async def work() -> Any:
        return await asyncio.gather(system.rollout.run(0, system.problems[:12]), stop())

    completions = system.fleet.run(work())[0]
    took_s = time.monotonic() - stopped_at
    print(f"stopped in a rollout, which took {took_s:.1f} s more; {len(completions)} completions")
    assert took_s < LONG_S / 2


def test_an_idle_core_that_is_stopped_is_ended_between_steps(system: System) -> None:
    all_healthy(system, 6)
    core = processes("EngineCore")[0]
    core.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    while has_not_ended(core) or all(is_healthy(engine) for engine in system.fleet.engines):
        assert time.monotonic() < began + LONG_S / 2
        system.fleet.poll()
        time.sleep(0.2)
    print(f"stopped while idle: ended, and its engine lost, after {time.monotonic() - began:.1f} s")
    assert sum(is_healthy(engine) for engine in system.fleet.engines) == 1


def is_healthy(engine: EngineProcess) -> bool:
    return engine.state is EngineState.HEALTHY


def has_not_ended(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
