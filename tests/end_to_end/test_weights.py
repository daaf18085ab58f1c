"""Weights arrive, and when they do not it shows: two real engines and a learner of two ranks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from actors.engine import VllmEngine
from cluster.remote import RemoteActor
from cluster.weight_sync.broadcast import SyncReport, WeightBroadcaster
from mgrpo.errors import WeightSyncError
from mgrpo.metrics.log import read_metrics
from mgrpo.training import run
from mgrpo.training.system import System, start_system
from tests.end_to_end.conftest import recipe

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
CALL = {"deadline_s": 30.0, "setting": "a test"}


@pytest.fixture(scope="module")
def system(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    extension = "tests.end_to_end.faults.FaultyWorker"
    config = recipe(
        tree,
        engines={"extra_args": {"worker_extension_cls": extension}},
        learner={**tree["learner"], "num_ranks": 2, "zero_stage": 3},
        objective={"update_order": "sequential", "kl": {"weight": 0.01}},
    )
    logs: Path = tmp_path_factory.mktemp("logs")
    with start_system(config, logs_to=logs, with_learner=True, note=print) as running:
        yield running


def broadcaster(system: System) -> WeightBroadcaster:
    return system.fleet.broadcaster


def broadcast(system: System, policy_version: int) -> SyncReport:
    return broadcaster(system).broadcast(policy_version, system.fleet.actors)


def spoil(system: System, engine: int, method: str, *args: str) -> None:
    actor: RemoteActor[Any] = system.fleet.actors[engine]
    actor.submit(VllmEngine.on_workers, method, *args).result(**CALL)


def test_both_engines_take_the_version_and_load_equal_weights(system: System) -> None:
    report = broadcast(system, 7)
    assert report.num_tensors > 10 and report.probe_gap_max is not None
    assert report.probe_gap_max < 1e-4
    actors: list[RemoteActor[Any]] = list(system.fleet.actors)
    versions = [engine.submit(VllmEngine.weight_version).result(**CALL) for engine in actors]
    assert versions == ["7", "7"]
    work = "compute_weight_checksums"  # SHA-256 of each tensor as loaded, per worker
    first, second = (one.submit(VllmEngine.on_workers, work).result(**CALL) for one in actors)
    assert first == second and len(first[0]) > 10


def test_a_tensor_that_changes_on_the_way_is_caught_by_its_checksum(system: System) -> None:
    spoil(system, 1, "spoil_next_received", "model.layers.1.self_attn.o_proj.weight")
    with pytest.raises(WeightSyncError) as caught:
        broadcast(system, 8)
    assert "layer2-engine-0" in str(caught.value)
    assert "1 of" in str(caught.value) and "layers.1.self_attn.o_proj" in str(caught.value)
    broadcast(system, 9)  # a whole, good update mends it


def test_a_tensor_that_is_wrong_after_loading_is_caught_by_the_probe(system: System) -> None:
    broadcast(system, 10)
    spoil(system, 0, "spoil_loaded")
    with pytest.raises(WeightSyncError, match=r"layer1-engine-0's probe .* differ"):
        broadcaster(system).check_probe(10, broadcaster(system).expected_probe() or [])


def test_an_engine_that_kept_its_old_version_is_caught(system: System) -> None:
    broadcast(system, 11)
    with pytest.raises(WeightSyncError, match="reports policy version '11'"):
        broadcaster(system).check_versions(12)


def test_layer_by_layer_updates_with_two_zero_ranks(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broadcast(system, 0)
    monkeypatch.setattr(run, "start_system", lambda *_, **__: nullcontext(system))
    run.run_training(system.config, tmp_path)
    rows = read_metrics(tmp_path)
    assert [row["policy_version"] for row in rows] == [2, 4]  # one update per layer and step
    versions = {
        (c["layer"], c["version_spans"][0][1])
        for c in map(json.loads, (tmp_path / "rollouts" / "step-000001.jsonl").open())
    }
    assert versions == {(1, 2), (2, 3)}  # layer 2 was sampled from the refreshed policy
    assert all(row["weights/probe_gap_max"] < 1e-3 for row in rows)
