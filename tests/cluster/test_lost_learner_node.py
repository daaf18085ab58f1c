"""A node is lost with its learner ranks: others are placed on a node that joins; real raylets."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.allocations import Allocation
from cluster.placement import Placement
from cluster.runtime import REPOSITORY_ROOT, init_ray
from mgrpo.errors import ActorDiedError
from tests.cluster.fleet.light_fleet import LightLearner

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(280)]
HEAD = "127.0.0.7"
CALL = {"deadline_s": 120.0, "setting": "a test"}


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
        ray.shutdown()
        running.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_ranks_of_a_lost_node_are_placed_on_the_node_that_joins(cluster: Any) -> None:
    lost = cluster.add_node(node_ip_address="127.0.0.8", num_cpus=2, **cluster.common)
    learner = Allocation("learner", bundles=({"CPU": 1.0}, {"CPU": 1.0}))
    placement = Placement.reserve([learner], deadline_s=60, can_grow=True)

    def rank(number: int, name: str) -> Any:
        return placement.start(
            partial(LightLearner),
            allocation=learner,
            bundle=number,
            name=name,
            environment={},
            answers_looks=True,
        )

    before = rank(1, "learner-rank-1")
    before.submit(LightLearner.meeting_point).result(**CALL)
    cluster.remove_node(lost, allow_graceful=False)
    end = time.monotonic() + 60  # its process outlives the raylet for a moment
    with pytest.raises(ActorDiedError, match="learner-rank-1 died"):
        while time.monotonic() < end:
            before.submit(LightLearner.meeting_point).result(**CALL)
    again = rank(1, "learner-rank-1.1").submit(LightLearner.meeting_point)
    assert not again.is_done()
    cluster.add_node(node_ip_address="127.0.0.9", num_cpus=2, **cluster.common)
    again.result(**CALL)
    assert placement.node_of(learner) == "127.0.0.9"
