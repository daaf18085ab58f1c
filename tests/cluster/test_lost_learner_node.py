"""A node is lost with its learner ranks and engines, and Ray has not noticed yet; real raylets."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from cluster.allocations import Allocation
from cluster.fleet.engine_process import EngineProcess, StateChange, Timing
from cluster.fleet.health import EngineState, Patience
from cluster.placement import Placement
from cluster.progress_board import ProgressBoard
from cluster.runtime import REPOSITORY_ROOT, init_ray
from learner.rank import LearnerRank
from mgrpo.config.load import load_recipe
from mgrpo.errors import ActorDiedError
from mgrpo.models.node_model import NodeModel
from mgrpo.training.launcher import Launcher
from tests.cluster.fleet.light_fleet import LightLauncher

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
HEAD, LOST, JOINS = "127.0.0.7", "127.0.0.8", "127.0.0.9"
CALL = {"deadline_s": 120.0, "setting": "a test"}
NOTICED_S = 150.0  # until Ray has marked a node dead that stands still, and a process started
LEARNER = Allocation("learner", bundles=({"CPU": 1.0}, {"CPU": 1.0}))
ENGINE = Allocation("layer1-engine-0", bundles=({"CPU": 1.0},), layers=(1,))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="mgrpo-n-")  # short: Unix sockets allow 107 bytes
    monkeypatch.setenv("RAY_TMPDIR", folder)
    (Path(folder) / "ray").mkdir()
    common = {"temp_dir": folder, "object_store_memory": 80 << 20}
    head = {**common, "node_ip_address": HEAD, "num_cpus": 0, "include_dashboard": False}
    running = Cluster(initialize_head=True, head_node_args=head)
    running.common = common
    init_ray(
        address=running.address,
        runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY_ROOT)}},
        log_to_driver=False,
        _node_ip_address=HEAD,
    )
    try:
        yield running
    finally:
        for one in processes_of(folder, LOST):  # those that a test has stopped
            one.kill()
        ray.shutdown()
        running.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def processes_of(folder: str, address: str) -> list[psutil.Process]:
    """The raylet of a node, and what it has started."""
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            words = " ".join(one.cmdline())
            if one.name() == "raylet" and folder in words and address in words:
                found += [one, *one.children(recursive=True)]
    return found


def alive() -> set[str]:
    """The nodes that Ray takes for alive."""
    return {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


def until(condition: Callable[[], bool], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def launcher(placement: Placement) -> Launcher:
    config = load_recipe("quickstart", ("learner.num_ranks=2",))
    model = NodeModel("no model", "no model", config.output.storage)
    return Launcher(config, placement, "cpu", model, 64, ())


@pytest.mark.slow
@pytest.mark.parametrize("stands_still", [False, True])
def test_ranks_of_a_lost_node_are_placed_on_the_node_that_joins(
    cluster: Any, stands_still: bool
) -> None:
    """Once: a rank that is placed on a node that Ray does not know to be dead dies with it."""
    lost = cluster.add_node(node_ip_address=LOST, num_cpus=2, **cluster.common)
    placement = Placement.reserve([LEARNER], deadline_s=60, can_grow=True)
    ranks = launcher(placement).learner([LEARNER])
    for rank in ranks:
        assert rank.submit(LearnerRank.meeting_point).result(**CALL)[0] == LOST
    if stands_still:
        for one in processes_of(cluster.common["temp_dir"], LOST):
            one.suspend()
    else:
        cluster.remove_node(lost, allow_graceful=False)
        end = time.monotonic() + 60  # its process outlives the raylet for a moment
        with pytest.raises(ActorDiedError, match="learner-rank-1 died"):
            while time.monotonic() < end:
                ranks[1].submit(LearnerRank.meeting_point).result(**CALL)
    assert LOST in alive()
    for rank in ranks:
        rank.kill()
    again = [
        rank.submit(LearnerRank.meeting_point)
        for rank in launcher(placement).learner([LEARNER], replacement=1)
    ]
    assert LOST not in alive()
    assert not any(call.is_done() for call in again)
    cluster.add_node(node_ip_address=JOINS, num_cpus=2, **cluster.common)
    assert [call.result(**CALL)[0] for call in again] == [JOINS, JOINS]
    assert placement.node_of(LEARNER) == JOINS


@pytest.mark.slow
@pytest.mark.parametrize("stands_still", [False, True])
def test_an_engine_of_a_lost_node_is_restarted_once_on_the_node_that_joins(
    cluster: Any, stands_still: bool
) -> None:
    """Resources that are requested of a node that stands still are not granted for minutes, even
    where another node has them, and all requests of the cluster wait for that one."""
    lost = cluster.add_node(node_ip_address=LOST, num_cpus=1, **cluster.common)
    placement = Placement.reserve([ENGINE], deadline_s=60, can_grow=True)
    changes: list[StateChange] = []
    timing = Timing(
        patience=Patience(2, 4, max_restarts=1, restart_window_s=3600),
        heartbeat_s=0.5,
        start_s=120,
        shutdown_s=5,
    )
    start = LightLauncher(placement).start_engine
    engine = EngineProcess(ENGINE, placement, start, timing, changes.append, ProgressBoard())  # type: ignore[arg-type]
    engine.make_actor()

    def reaches(state: EngineState) -> bool:
        engine.poll()
        return engine.state is state

    until(lambda: reaches(EngineState.STALE), 60)
    cluster.add_node(node_ip_address=JOINS, num_cpus=1, **cluster.common)
    if stands_still:
        for one in processes_of(cluster.common["temp_dir"], LOST):
            one.suspend()
    else:
        cluster.remove_node(lost, allow_graceful=False)
    until(lambda: reaches(EngineState.DEAD), 60)
    assert LOST in alive()
    until(lambda: reaches(EngineState.STALE), NOTICED_S)
    assert LOST not in alive()
    assert engine.node == JOINS
    assert [change.now for change in changes].count(EngineState.DEAD) == 1
    assert engine.num_actors == 2
