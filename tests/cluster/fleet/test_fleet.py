"""Engines die, hang, come and go, and the work is done all the same: real Ray, light engines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from benchmarks.chaos import clock
from cluster.allocations import placement_recipe, plan_allocations
from cluster.fleet.engine_log import EngineLog, read_engine_log
from cluster.fleet.fleet import Fleet, costs_least
from cluster.fleet.health import EngineHealth, EngineState
from cluster.fleet.leases import sample_leased
from cluster.placement import Placement
from cluster.remote import Call, RemoteActor, errors_of_signals, wait_for
from cluster.runtime import LOOPBACK, REPOSITORY_ROOT, this_machine_alone
from cluster.weight_sync.broadcast import GroupSettings, WeightBroadcaster
from mgrpo.config import RunConfig, WeightsConfig
from mgrpo.config.load import load_recipe
from mgrpo.errors import (
    ActorDiedError,
    DeadlineError,
    RequestError,
    RunInterrupted,
    WeightSyncError,
)
from mgrpo.metric_sums import MetricSums
from mgrpo.records.turns import Prompt
from mgrpo.types import Generation
from tests.cluster.fleet.light_fleet import REFUSED_PROMPT, LightEngine, LightLauncher, LightLearner

pytestmark = pytest.mark.processes

CALL = {"deadline_s": 20.0, "setting": "a test"}


@pytest.fixture(scope="module")
def one_node() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="mgrpo-ray-") as folder:
        with this_machine_alone():
            ray.init(
                address="local",
                num_cpus=6,
                include_dashboard=False,
                _temp_dir=folder,
                _node_ip_address=LOOPBACK,
                object_store_memory=80 * 1024 * 1024,
                log_to_driver=False,
                runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY_ROOT)}},
            )
        yield
        ray.shutdown()


def test_a_signal_ends_a_wait_in_ray_by_its_own_error(one_node: None) -> None:
    """Otherwise Ctrl-C while engines load does nothing until they are there."""

    def stop(number: int, frame: object) -> None:
        raise RunInterrupted("SIGALRM", 142)

    never = ray.remote(num_cpus=0)(lambda: time.sleep(600)).remote()
    call: Call[None] = Call(RemoteActor(None, "nobody"), "sleep", never)
    previous = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(RunInterrupted):
            wait_for([call], **CALL)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        ray.cancel(never, force=True)


def test_an_error_of_ray_itself_stays_one() -> None:
    with pytest.raises(SystemError, match="its own"), errors_of_signals():
        raise SystemError("its own")


@dataclass
class Parts:
    fleet: Fleet
    learner: RemoteActor[LightLearner]
    launcher: LightLauncher
    notes: list[str] = field(default_factory=list)

    def actor(self, name: str) -> RemoteActor[Any]:
        actor = next(engine.actor for engine in self.fleet.engines if engine.name == name)
        assert actor is not None
        return actor

    def state(self, name: str) -> EngineState:
        return next(engine.state for engine in self.fleet.engines if engine.name == name)

    def until(self, condition: Callable[[], bool], *, timeout_s: float = 20) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, [(e.name, e.state) for e in self.fleet.engines]
            self.fleet.poll()
            time.sleep(0.05)

    def sample(self, layer: int, *, count: int, meanwhile: Any = None) -> list[list[Generation]]:
        """As many requests at a time, each with its own seed."""

        async def work() -> list[list[Generation]]:
            requests = [
                sample_leased(
                    self.fleet,
                    layer,
                    Prompt.of([7]),
                    num_samples=2,
                    max_tokens=4,
                    temperature=1.0,
                    seed=seed,
                    what="something",
                )
                for seed in range(count)
            ]
            if meanwhile is not None:
                requests.append(meanwhile())
            return (await asyncio.gather(*requests))[:count]

        return self.fleet.run(work())


def light_config(**changes: Any) -> RunConfig:
    tree = load_recipe("quickstart").model_dump()
    engines = changes.pop("num_engines", (2, 1))
    for layer, count in zip(tree["layers"], engines, strict=True):
        layer["num_engines"] = count
    health = {"heartbeat_s": 0.2, "suspect_after_s": 1, "dead_after_s": 2}
    elastic = {"grow_min_inflight": 1, "grow_after_steps": 1, "shrink_after_steps": 1}
    tree["cluster"] |= {
        "health": {**health, **changes.pop("health", {})},
        "elastic": elastic,
        "deadlines": {**tree["cluster"]["deadlines"], **changes.pop("deadlines", {})},
        "engine_nodes": changes.pop("engine_nodes", {}),
    }
    if changes.pop("colocate", False):
        tree["cluster"]["colocate"] = True
        tree["engines"] |= {"shared": True, "num_shared_engines": 2}
        tree["learner"] |= {"num_ranks": 2, "zero_stage": 2}
    return RunConfig.model_validate(tree)


@contextmanager
def light_run(
    tmp_path: Path, *, pause_s: float = 0.05, can_grow: bool = False, **changes: Any
) -> Iterator[Parts]:
    config = light_config(**changes)
    allocations = plan_allocations(placement_recipe(config), "cpu")
    deadline_s = config.cluster.deadlines.placement_s
    placement = Placement.reserve(allocations, deadline_s=deadline_s, can_grow=can_grow)
    launcher = LightLauncher(placement, pause_s=pause_s)
    notes: list[str] = []
    log = EngineLog(tmp_path / "engines.jsonl")
    fleet = Fleet(
        placement_recipe(config),
        "cpu",
        placement,
        launcher.start_engine,
        log=log,
        note=notes.append,
    )
    try:
        fleet.start()
        if config.cluster.takes_turns:
            fleet.wait_until_loaded()
            fleet.sleep()
        learner = launcher.start_learner(
            next(allocation for allocation in allocations if allocation.is_learner)
        )
        fleet.wait_until_loaded()
        broadcaster = WeightBroadcaster(
            [learner],
            group=GroupSettings(
                backend="gloo",
                workers_per_engine=1,
                shares_gpus=config.cluster.takes_turns,
                deadline_s=20,
            ),
            config=WeightsConfig(),
            dtype="float32",
            probe_token_ids=[1, 2],
        )
        fleet.connect(broadcaster, 0)
        yield Parts(fleet, learner, launcher, notes)
    finally:
        placement.release()


def counts(parts: Parts, step_s: float = 1.0, update_s: float = 0.0) -> dict[str, float]:
    sums = MetricSums()
    sums.add_total("seconds/step", step_s)
    sums.add_total("seconds/update", update_s)
    parts.fleet.close_step(sums)
    return sums.means()


def test_an_engine_killed_in_a_rollout_costs_nothing_but_time(
    one_node: None, tmp_path: Path
) -> None:
    with light_run(tmp_path, pause_s=0.3) as parts:
        undisturbed = parts.sample(1, count=12)

        async def kill() -> None:
            await asyncio.sleep(0.1)
            parts.actor("layer1-engine-0").kill()

        disturbed = parts.sample(1, count=12, meanwhile=kill)
        assert [[s.token_ids.tolist() for s in group] for group in disturbed] == [
            [s.token_ids.tolist() for s in group] for group in undisturbed
        ]
        assert {s.engine for group in disturbed for s in group} == {"layer1-engine-1"}

        # It comes back, is stale, and gets no work before a broadcast.
        parts.until(lambda: parts.state("layer1-engine-0") is EngineState.STALE)
        again = parts.sample(1, count=4)
        assert {s.engine for group in again for s in group} == {"layer1-engine-1"}
        found = counts(parts)
        assert (found["engines/deaths"], found["engines/restarts"]) == (1, 1)
        assert found["engines/requests_resent"] == 6  # of 12, the half that it had
        assert (found["engines/stale"], found["engines/healthy"]) == (1, 2)
        parts.fleet.broadcast(1)
        spread = parts.sample(1, count=12)
        assert {s.engine for group in spread for s in group} == {
            "layer1-engine-0",
            "layer1-engine-1",
        }
        assert {s.oldest_version for group in spread for s in group} == {1}
        assert counts(parts)["engines/healthy"] == 3
        changes = [
            (c["from"], c["to"]) for c in read_engine_log(tmp_path) if "1-engine-0" in c["engine"]
        ]
        assert changes[3:] == [
            ("healthy", "dead"),
            ("dead", "restarting"),
            ("restarting", "stale"),
            ("stale", "healthy"),
        ]
        assert any("layer1-engine-0 is lost" in note for note in parts.notes)


@pytest.mark.skipif(not clock.is_possible(), reason="there is no C compiler")
def test_an_engine_comes_back_after_the_clock_was_set_back(tmp_path: Path) -> None:
    """Ray grants no new resources until the clock has caught up: it goes where it was."""
    command = [sys.executable, "-m", "tests.cluster.fleet.clock_driver", str(tmp_path)]
    environment = {**os.environ, **clock.environment(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout.splitlines()[-1])
    assert states == ["starting", "stale", "dead", "restarting", "stale"]


def test_an_engine_that_gives_no_token_is_replaced_and_its_work_is_done(
    one_node: None, tmp_path: Path
) -> None:
    with light_run(tmp_path, deadlines={"generate_s": 2}) as parts:
        parts.actor("layer1-engine-0").submit(LightEngine.hang_at, "generate").result(**CALL)
        groups = parts.sample(1, count=6)
        assert [[s.token_ids.tolist() for s in group] for group in groups] == [
            [[7, seed, index] for index in range(2)] for seed in range(6)
        ]
        assert {s.engine for group in groups for s in group} == {"layer1-engine-1"}
        found = counts(parts)
        assert (found["engines/deaths"], found["engines/requests_resent"]) == (1, 3)
        assert any("cluster.deadlines.generate_s" in note for note in parts.notes)


def test_a_prompt_that_no_engine_can_sample_costs_no_engine(one_node: None, tmp_path: Path) -> None:
    with light_run(tmp_path, health={"max_resends": 1}) as parts:
        asked = {"num_samples": 1, "max_tokens": 4, "temperature": 1.0, "seed": 0, "what": "it"}
        with pytest.raises(
            RequestError, match=r"Layer 1: it .* layer1-engine-\d, layer1-engine-\d"
        ):
            parts.fleet.run(sample_leased(parts.fleet, 1, Prompt.of(REFUSED_PROMPT), **asked))
        assert len(parts.sample(1, count=4)) == 4
        found = counts(parts)
        assert (found["engines/deaths"], found["engines/healthy"]) == (0, 3)
        assert found["engines/requests_resent"] == 2
        assert any("is retried" in note for note in parts.notes)


@pytest.mark.cluster
def test_a_layer_s_last_engine_gets_weights_in_the_middle_of_the_step(
    one_node: None, tmp_path: Path
) -> None:
    with light_run(tmp_path, pause_s=0.2) as parts:
        parts.fleet.broadcast(3)
        parts.actor("layer2-engine-0").submit(LightEngine.die_at, "generate").result(**CALL)
        groups = parts.sample(2, count=3)
        assert [[s.token_ids.tolist() for s in group] for group in groups] == [
            [[7, seed, index] for index in range(2)] for seed in range(3)
        ]
        assert {s.oldest_version for group in groups for s in group} == {3}
        found = counts(parts)
        assert (found["engines/broadcasts_in_step"], found["engines/healthy"]) == (1, 3)
        assert [e.name for e in parts.fleet.broadcaster.engines] == ["layer2-engine-0"]
        assert parts.fleet.broadcast(4).num_tensors == 1  # all of them again


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("pause", marks=pytest.mark.cluster),
        pytest.param("start_weight_update", marks=pytest.mark.cluster),
        "update_weights",
        pytest.param("finish_weight_update", marks=pytest.mark.cluster),
        pytest.param("probe_logprobs", marks=pytest.mark.cluster),
    ],
)
def test_an_engine_that_dies_in_a_broadcast_is_left_out_and_comes_back(
    one_node: None, tmp_path: Path, method: str
) -> None:
    with light_run(tmp_path) as parts:
        parts.actor("layer1-engine-1").submit(LightEngine.die_at, method).result(**CALL)
        report = parts.fleet.broadcast(1)
        assert report.policy_version == 1
        assert parts.state("layer1-engine-0") is EngineState.HEALTHY
        # It is dead until its node has answered.
        assert parts.state("layer1-engine-1") in (EngineState.DEAD, EngineState.RESTARTING)
        found = counts(parts)
        assert (found["engines/failed_broadcasts"], found["engines/deaths"]) == (1, 1)
        parts.until(lambda: parts.state("layer1-engine-1") is EngineState.STALE)
        parts.fleet.broadcast(2)
        assert counts(parts)["engines/healthy"] == 3


def away(parts: Parts) -> list[str]:
    return parts.learner.submit(LightLearner.what_is_away).result(**CALL)


def test_engines_that_sleep_get_weights_before_they_work(one_node: None, tmp_path: Path) -> None:
    with light_run(tmp_path, colocate=True) as parts:
        assert away(parts) == ["optimizer", "weights"]
        assert len(parts.sample(1, count=4)) == 4
        parts.fleet.offload_engines()
        assert away(parts) == []
        groups = parts.sample(2, count=4)  # no update, so no broadcast: one is made first
        assert {s.oldest_version for group in groups for s in group} == {0}
        assert away(parts) == ["optimizer", "weights"]
        parts.fleet.offload_engines()
        parts.fleet.broadcast(1)
        assert away(parts) == ["optimizer", "weights"]
        groups = parts.sample(1, count=4)
        assert {s.oldest_version for group in groups for s in group} == {1}


@pytest.mark.parametrize(
    ("method", "deaths"), [("sleep", 1), pytest.param("wake", 1, marks=pytest.mark.cluster)]
)
def test_an_engine_that_dies_in_a_handover_is_left_out_for_good(
    one_node: None, tmp_path: Path, method: str, deaths: int
) -> None:
    with light_run(tmp_path, colocate=True) as parts:
        parts.actor("engine-1").submit(LightEngine.die_at, method).result(**CALL)
        parts.fleet.offload_engines()
        assert away(parts) == []
        parts.fleet.broadcast(1)
        assert parts.state("engine-1") is EngineState.GONE
        groups = parts.sample(1, count=4)
        assert {s.engine for group in groups for s in group} == {"engine-0"}
        assert {s.oldest_version for group in groups for s in group} == {1}
        assert counts(parts)["engines/deaths"] == deaths
        assert any("is not restarted" in note for note in parts.notes), parts.notes


def test_an_engine_that_is_silent_leaves_the_learners_gpu_too(
    one_node: None, tmp_path: Path
) -> None:
    with light_run(tmp_path, colocate=True) as parts:
        parts.sample(1, count=4)
        (silent,) = [engine for engine in parts.fleet.engines if engine.name == "engine-1"]
        silent.health = replace(silent.health, state=EngineState.SUSPECT)
        parts.fleet.offload_engines()
        assert away(parts) == []
        parts.actor("engine-1").submit(LightEngine.wake, "weights").result(
            **CALL
        )  # fails where it is not asleep


def impatient(parts: Parts) -> None:
    group = GroupSettings(backend="gloo", workers_per_engine=1, shares_gpus=False, deadline_s=1)
    parts.fleet.broadcaster.group = group


@pytest.mark.cluster
def test_an_engine_that_hangs_in_a_broadcast_is_ended(one_node: None, tmp_path: Path) -> None:
    with light_run(tmp_path) as parts:
        impatient(parts)
        hang = ("pause", "abandon_weight_update")
        parts.actor("layer1-engine-1").submit(LightEngine.hang_at, *hang).result(**CALL)
        assert parts.fleet.broadcast(1).policy_version == 1
        # It is dead until its node has answered.
        assert parts.state("layer1-engine-1") in (EngineState.DEAD, EngineState.RESTARTING)


@pytest.mark.cluster
def test_broadcasts_that_fail_without_a_death_are_bounded(one_node: None, tmp_path: Path) -> None:
    with light_run(tmp_path) as parts:
        impatient(parts)
        parts.actor("layer1-engine-1").submit(LightEngine.hang_at, "pause").result(**CALL)
        with pytest.raises(WeightSyncError, match=r"3 broadcasts .* layer1-engine-1 \(pause\)"):
            parts.fleet.broadcast(1)
        assert {engine.state for engine in parts.fleet.engines} == {EngineState.STALE}


@pytest.mark.cluster
def test_silence_makes_a_suspect_that_is_replaced_in_the_end(
    one_node: None, tmp_path: Path
) -> None:
    with light_run(tmp_path) as parts:
        parts.actor("layer1-engine-0").submit(LightEngine.hang_at, "check_health").result(**CALL)
        parts.until(lambda: parts.state("layer1-engine-0") is EngineState.SUSPECT)
        found = parts.sample(1, count=4)
        assert {s.engine for group in found for s in group} == {"layer1-engine-1"}
        parts.until(lambda: parts.state("layer1-engine-0") is EngineState.STALE)
        assert counts(parts)["engines/deaths"] == 1


@pytest.mark.cluster
def test_a_layer_whose_engines_are_given_up_ends_the_run_with_their_names(
    one_node: None, tmp_path: Path
) -> None:
    with light_run(tmp_path, health={"max_restarts": 0}) as parts:
        parts.actor("layer2-engine-0").submit(LightEngine.die_at, "generate").result(**CALL)
        with pytest.raises(ActorDiedError, match=r"No engine of layer2 .*layer2-engine-0.* died"):
            parts.sample(2, count=1)


@pytest.mark.cluster
def test_an_engine_that_does_not_come_back_in_time_is_named(one_node: None, tmp_path: Path) -> None:
    with light_run(tmp_path, deadlines={"engine_return_s": 0.5}) as parts:
        parts.launcher.loads = False
        parts.actor("layer2-engine-0").kill()
        with pytest.raises(DeadlineError, match=r"(?s)layer2-engine-0 is .*engine_return_s"):
            parts.sample(2, count=1)


@pytest.mark.cluster
def test_a_learner_that_dies_ends_the_run(one_node: None, tmp_path: Path) -> None:
    with light_run(tmp_path) as parts:
        parts.learner.submit(LightLearner.die_at_next_broadcast).result(**CALL)
        with pytest.raises(ActorDiedError, match="learner-rank-0 died"):
            parts.fleet.broadcast(1)


@pytest.mark.cluster
def test_a_pool_grows_while_it_is_the_bottleneck_and_shrinks_when_idle(
    one_node: None, tmp_path: Path
) -> None:
    with light_run(tmp_path, num_engines=(1, {"min": 1, "max": 2}), pause_s=0.5) as parts:
        parts.sample(2, count=8)
        found = counts(parts, step_s=0.6)
        assert found["pipeline/layer2_busy_fraction"] > 0.8
        assert found["pipeline/layer1_busy_fraction"] == 0.0
        assert found["pipeline/layer2_inflight_mean"] > 4
        assert [e.name for e in parts.fleet.members["layer2"]][1:] == ["layer2-engine-1"]
        parts.until(lambda: parts.state("layer2-engine-1") is EngineState.STALE)
        parts.fleet.broadcast(1)
        assert counts(parts, step_s=100, update_s=90)["engines/layer2_working"] == 2
        # That step was idle: one engine goes, with its place.
        parts.until(lambda: len(parts.fleet.members["layer2"]) == 1)
        assert set(parts.fleet.placement.groups) == {
            "layer1-engine-0",
            "layer2-engine-0",
            "learner",
        }
        assert {s.engine for group in parts.sample(2, count=4) for s in group} == {
            "layer2-engine-0"
        }
        assert parts.fleet.broadcast(2).num_tensors == 1


def test_the_engine_that_costs_least_is_given_back() -> None:
    def engine(state: EngineState) -> Any:
        health = EngineHealth(state, since=0.0, quiet_since=0.0)
        return SimpleNamespace(health=health, state=state)

    old, new = engine(EngineState.HEALTHY), engine(EngineState.HEALTHY)
    assert costs_least([old, new]) is new
    stale, coming = engine(EngineState.STALE), engine(EngineState.STARTING)
    assert costs_least([stale, old, new]) is stale
    assert costs_least([coming, stale, old]) is coming
    assert costs_least([engine(EngineState.GONE), old, engine(EngineState.DEAD)]) is old
