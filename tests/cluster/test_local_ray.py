"""Who can reach a run's own Ray: its sockets, and a stranger who knows its address."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import ray

from cluster.runtime import TOKEN_VARIABLES, ray_runtime
from mgrpo.config import ClusterConfig
from tests.sockets import listening, reached_from_outside

STRANGER = """
import sys
from ray._raylet import GcsClient
print(GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, timeout=20))
"""
DEADLINE_S = 60


class Sleeper:
    def pid(self) -> int:
        return os.getpid()

    def threads(self) -> list[str]:
        return [one.name for one in threading.enumerate()]

    def hub_token(self) -> str:
        return os.environ["HF_TOKEN"]


def asked_by_a_stranger(address: str, **variables: str) -> str:
    """What a client with other variables than the run's is answered."""
    own = {name: value for name, value in os.environ.items() if name not in TOKEN_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-P", "-c", STRANGER, address],
        env={**own, **variables},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    return f"{done.returncode} {done.stdout} {done.stderr}"


def test_a_local_ray_listens_on_this_machine_alone_and_answers_no_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As somebody has it who uses a cluster, and once had trouble with its tokens.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of the cluster")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "of the hub")
    open_before = set(reached_from_outside(os.getpid()))  # other tests'
    config = ClusterConfig(address="local", dashboard=True)
    with ray_runtime(config, num_cpus=1, logs_to=None) as runtime:
        actor = ray.remote(Sleeper).remote()
        pid = ray.get(actor.pid.remote(), timeout=DEADLINE_S)
        threads = ray.get(actor.threads.remote(), timeout=DEADLINE_S)
        assert "parent-watch" in threads  # Ray's own look at the raylet is timed by dates
        assert pid in {owner for owner, _ in listening(os.getpid())}
        assert set(reached_from_outside(os.getpid())) <= open_before

        assert runtime.token_file is not None and runtime.session_logs is not None
        own = Path(runtime.token_file)
        assert stat.S_IMODE(own.stat().st_mode) == 0o600
        assert stat.S_IMODE(own.parent.stat().st_mode) == 0o700
        assert own.parent in runtime.session_logs.parents

        address = ray.get_runtime_context().gcs_address
        secret = own.read_text()
        for variables in (
            {"RAY_AUTH_MODE": "disabled"},
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secret[::-1]},
        ):
            answer = asked_by_a_stranger(address, **variables)
            assert answer.startswith("1 ") and "AuthenticationError" in answer, answer
        owner = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(own)}
        assert asked_by_a_stranger(address, **owner).startswith("0 "), "the token opens it"

        assert ray.get(actor.hub_token.remote(), timeout=DEADLINE_S) == "hf_of the hub"
        logs = [log for log in runtime.session_logs.rglob("*") if log.is_file()]
        assert logs
        for log in logs:
            text = log.read_text(errors="replace")
            assert secret not in text and "hf_of the hub" not in text, log
    assert not own.exists()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert os.environ["RAY_AUTH_TOKEN"] == "of the cluster"


@pytest.mark.processes
def test_nothing_outlives_a_local_ray_whose_gcs_was_lost() -> None:
    config = ClusterConfig(address="local", dashboard=False)
    with ray_runtime(config, num_cpus=1, logs_to=None):
        started = psutil.Process().children(recursive=True)
        (gcs,) = [one for one in started if one.name() == "gcs_server"]
        assert "ray::RuntimeEnvAgent" in {one.name() for one in started}
        gcs.kill()
        time.sleep(1)
    assert psutil.wait_procs(started, timeout=5)[1] == []  # agents try for a minute to reach it


@pytest.mark.processes
def test_agents_that_cannot_see_the_end_of_their_raylet_end_with_a_local_ray() -> None:
    """As one that still starts does not, on a machine with much to do."""
    config = ClusterConfig(address="local", dashboard=False)
    with ray_runtime(config, num_cpus=1, logs_to=None):
        children = {one.name(): one for one in psutil.Process().children()}
        raylet, gcs = children["raylet"], children["gcs_server"]
        agents = [one for one in raylet.children() if one.name().endswith("Agent")]
        assert agents
        for agent in agents:
            agent.suspend()
        raylet.kill()
        gcs.kill()
        raylet.wait(DEADLINE_S)
    assert psutil.wait_procs(agents, timeout=5)[1] == []


DRIVER = """
import time
import psutil
import ray
from cluster.runtime import ray_runtime
from mgrpo.config import ClusterConfig

class Sleeper:
    def ready(self):
        return True

with ray_runtime(ClusterConfig(address="local", dashboard=False), num_cpus=1, logs_to=None):
    actor = ray.remote(Sleeper).remote()
    ray.get(actor.ready.remote(), timeout=60)
    (raylet,) = [one for one in psutil.Process().children() if one.name() == "raylet"]
    agents = [one for one in raylet.children() if one.name().endswith("Agent")]
    for agent in agents:
        agent.suspend()
    print(*(one.pid for one in agents), flush=True)
    time.sleep(600)
"""


@pytest.mark.processes
def test_agents_end_with_a_driver_that_is_killed_though_they_do_not_see_it() -> None:
    """Ray's own look at the raylet ends them late: they tell a GCS first that has ended, too."""
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout is not None
        agents = [psutil.Process(int(pid)) for pid in driver.stdout.readline().split()]
        assert agents
        driver.kill()
    assert psutil.wait_procs(agents, timeout=10)[1] == []
