"""Sets the clock of a local Ray back by an hour, then kills an engine and waits until it is back.

    python -m tests.cluster.fleet.clock_driver FOLDER

A process of its own, which the clock's library is loaded into (`benchmarks/chaos/clock.py`, whose
folder is given). Prints one JSON object: the states of the engine, and of its resources.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import ray

from benchmarks.chaos import clock
from cluster.allocations import Allocation
from cluster.fleet.engine_process import EngineProcess, StateChange, Timing
from cluster.fleet.health import EngineState, Patience
from cluster.placement import Placement
from cluster.progress_board import ProgressBoard
from tests.cluster.fleet.light_fleet import LightEngine, LightLauncher

ENGINE = Allocation("layer1-engine-0", bundles=({"CPU": 1.0},), layers=(1,))
BACK_S = 60.0


def lose_and_regain(folder: Path) -> list[str]:
    """The engine's states, until it is back or `BACK_S` have passed."""
    placement = Placement.reserve([ENGINE], deadline_s=60, can_grow=False)
    changes: list[StateChange] = []
    patience = Patience(2, 4, max_restarts=1, restart_window_s=3600)
    timing = Timing(patience=patience, heartbeat_s=0.5, start_s=120, shutdown_s=5)
    start = LightLauncher(placement).start_engine
    engine = EngineProcess(ENGINE, placement, start, timing, changes.append, ProgressBoard())  # type: ignore[arg-type]
    engine.make_actor()

    def reaches(state: EngineState) -> bool:
        end = time.monotonic() + BACK_S
        while engine.state is not state and time.monotonic() < end:
            engine.poll()
            time.sleep(0.1)
        return engine.state is state

    if reaches(EngineState.STALE):
        before = time.time()
        assert clock.jump(folder, -3600)
        assert time.time() < before - 3500, "the library is not loaded"
        assert engine.actor is not None, "one that has loaded has an actor"
        process = engine.actor.submit(LightEngine.process_id)  # type: ignore[call-overload]
        os.kill(process.result(deadline_s=30, setting="a test"), signal.SIGKILL)
        if reaches(EngineState.RESTARTING):
            reaches(EngineState.STALE)
    placement.release()
    return [str(change.now.value) for change in changes]


if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    print(json.dumps(lose_and_regain(Path(sys.argv[1]))))
    ray.shutdown()
