"""Nodes come, go and are lost; the engines follow: Ray's autoscaler and real raylets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from benchmarks.elastic_cluster import HEAD_ADDRESS, ElasticCluster, elastic_cluster
from cluster.fleet.engine_log import read_engine_log
from cluster.fleet.health import EngineState
from tests.cluster.fleet.test_fleet import Parts, counts, light_run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
LOST_S = 90  # until Ray believes that a silent node is gone


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[ElasticCluster]:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with elastic_cluster(head={"CPU": 1}, node={"CPU": 1}, max_nodes=4, idle_s=5) as running:
        ray.init(address=running.address, _node_ip_address=HEAD_ADDRESS, log_to_driver=False)
        yield running
        ray.shutdown()


def alive() -> set[str]:
    return {str(node["NodeManagerAddress"]) for node in ray.nodes() if node["Alive"]}


def node_of(folder: Path, engine: str) -> str:
    return [r["node"] for r in read_engine_log(folder) if r["engine"] == engine and r["node"]][-1]


def wait_for_nodes(parts: Parts, count: int) -> None:
    parts.until(lambda: len(alive()) == count, timeout_s=60)


def test_engines_and_nodes_come_go_and_are_lost(cluster: ElasticCluster, tmp_path: Path) -> None:
    assert alive() == {HEAD_ADDRESS}
    with light_run(
        tmp_path,
        num_engines=({"min": 1, "max": 2}, 1),
        pause_s=0.5,
        can_grow=True,
        engine_nodes={"labels": {"role": "rollout"}},
        deadlines={"placement_s": 90},
    ) as parts:
        # Up: two engines need two nodes; layer 1 is the bottleneck and asks for a third.
        assert len(alive()) == 3
        parts.sample(1, count=8)
        assert counts(parts, step_s=0.6)["engines/layer1_coming"] == 0
        assert len(parts.fleet.members["layer1"]) == 2
        parts.sample(1, count=2)  # nothing waits for the engine that is to come
        parts.until(lambda: parts.state("layer1-engine-1") is EngineState.STALE, timeout_s=90)
        parts.fleet.broadcast(1)
        assert len(alive()) == 4

        # Lost: a node goes without a word; work goes on with the other engine.
        lost = node_of(tmp_path, "layer1-engine-0")
        cluster.lose_node(lost)
        groups = parts.sample(1, count=8)
        assert len(groups) == 8
        assert {s.engine for group in groups[4:] for s in group} == {"layer1-engine-1"}
        assert parts.fleet.broadcast(2).policy_version == 2
        parts.until(lambda: parts.state("layer1-engine-0") is EngineState.STALE, timeout_s=LOST_S)
        assert node_of(tmp_path, "layer1-engine-0") not in (lost, "")
        parts.fleet.broadcast(3)
        assert counts(parts, step_s=1, update_s=0.9)["engines/healthy"] == 3

        # Down: an idle step; an engine and its place go, then its node.
        counts(parts, step_s=1000, update_s=900)
        parts.until(lambda: len(parts.fleet.members["layer1"]) == 1)
        wait_for_nodes(parts, 3)
        assert {s.engine for group in parts.sample(1, count=4) for s in group} == {
            parts.fleet.members["layer1"][0].name
        }
    end = time.monotonic() + 60
    while alive() != {HEAD_ADDRESS}:
        assert time.monotonic() < end, alive()
        time.sleep(0.5)
