"""Who can reach a run's own Ray: its sockets, and a stranger who knows its address."""

from __future__ import annotations

import ipaddress
import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import ray

from cluster.runtime import TOKEN_VARIABLES, ray_runtime
from mgrpo.config import ClusterConfig

STRANGER = """
import sys
from ray._raylet import GcsClient
print(GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, timeout=20))
"""
DEADLINE_S = 60


class Sleeper:
    def pid(self) -> int:
        return os.getpid()

    def hub_token(self) -> str:
        return os.environ["HF_TOKEN"]


def listening(pids: set[int]) -> set[tuple[int, str]]:
    """(pid, address) of every socket that processes listen at."""
    return {
        (one.pid, one.laddr.ip.removeprefix("::ffff:"))
        for one in psutil.net_connections(kind="inet")
        if one.status == psutil.CONN_LISTEN and one.pid in pids
    }


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
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    config = ClusterConfig(address="local", dashboard=True)
    with ray_runtime(config, num_cpus=1, logs_to=None) as runtime:
        actor = ray.remote(Sleeper).remote()
        pid = ray.get(actor.pid.remote(), timeout=DEADLINE_S)
        children = {child.pid for child in psutil.Process().children(recursive=True)} - before
        found = listening({os.getpid(), *children})
        assert pid in {one for one, _ in found}
        assert {ip for _, ip in found if not ipaddress.ip_address(ip).is_loopback} == set()

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
