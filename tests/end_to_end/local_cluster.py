"""A Ray cluster of several nodes on this machine, with its job server and token authentication.

In a process of its own, so that Ray's settings and its token touch nothing else:

    with local_cluster([{"num_cpus": 2}, {"num_cpus": 4, "labels": {"role": "rollout"}}]) as it:
        it.environment()   # what a command line needs to talk to it

Each node has an address of its own on the loopback interface.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[2]
START_DEADLINE_S = 120
CALL_DEADLINE_S = 60


@dataclass(frozen=True)
class LocalCluster:
    """A cluster that runs, seen from outside."""

    url: str  # of its job server and dashboard
    gcs_address: str
    token: str
    folder: Path  # Ray's temporary folder: sessions, logs
    node_ids: list[str]  # in the order of the nodes given

    def environment(self, **changes: str | None) -> dict[str, str]:
        """This process's environment with the token and without any other cluster's address."""
        names = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
        kept = {name: value for name, value in os.environ.items() if name not in names}
        wanted = {"RAY_AUTH_TOKEN": self.token, "COLUMNS": "200", **changes}
        return {**kept, **{name: value for name, value in wanted.items() if value is not None}}

    def get(self, path: str) -> Any:
        """What the dashboard answers."""
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = requests.get(self.url + path, headers=headers, timeout=CALL_DEADLINE_S)
        answer.raise_for_status()
        return answer.json()

    def actors(self) -> list[dict[str, Any]]:
        """All actors that there are or were: name, state, node_id, pid and more."""
        return self.get("/api/v0/actors?limit=1000&detail=true")["data"]["result"]["result"]


@contextmanager
def local_cluster(
    nodes: Sequence[dict[str, Any]], environment: dict[str, str] | None = None
) -> Iterator[LocalCluster]:
    """Start a head and more nodes; end them all.

    Args:
        nodes: what each node has, as Ray's `Cluster.add_node` takes it; the first is the head.
        environment: more variables of the cluster's own processes, as a machine would have them.
    """
    folder = Path(tempfile.mkdtemp(prefix="mgrpo-c-"))  # short: Unix sockets allow 107 bytes
    token = secrets.token_hex(32)
    programs = Path(sys.executable).parent
    own = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",  # it would end us for what others use
        "RAY_GRAFANA_HOST": "http://127.0.0.1:9",
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(folder),
        "RAY_TMPDIR": str(folder),  # where Ray notes the latest cluster of this machine
        **(environment or {}),
    }
    (folder / "ray").mkdir()
    command = [sys.executable, str(Path(__file__)), str(folder), json.dumps(list(nodes))]
    with (folder / "cluster.log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,  # not the repository: jobs must bring their own code
            env=own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        facts = first_line(process, folder / "cluster.log")
        yield LocalCluster(**facts, token=token, folder=folder)
    finally:
        assert process.stdin is not None
        process.stdin.close()  # what it waits for
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)
        remove(folder)


def remove(folder: Path) -> None:
    """Delete a folder in which processes that are ending may still write for a moment."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.5)


def first_line(process: subprocess.Popen[str], log: Path) -> dict[str, Any]:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], START_DEADLINE_S)
    line = process.stdout.readline() if readable else ""
    assert line, (
        f"the cluster did not start within {START_DEADLINE_S} s:\n{log.read_text()[-5000:]}"
    )
    facts: dict[str, Any] = json.loads(line)
    return facts


def free_port(address: str) -> int:
    with socket.socket() as server:
        server.bind((address, 0))
        return int(server.getsockname()[1])


def serve(folder: str, nodes: list[dict[str, Any]]) -> None:
    """Run the cluster until standard input ends."""
    from ray._private.utils import write_ray_address
    from ray.cluster_utils import Cluster

    addresses = [f"127.0.0.{number}" for number in range(2, 2 + len(nodes))]
    head = {
        "include_dashboard": True,
        "dashboard_host": "127.0.0.1",
        "dashboard_port": free_port("127.0.0.1"),
        "temp_dir": folder,
        "dashboard_agent_listen_port": free_port(addresses[0]),
        "node_ip_address": addresses[0],
        **nodes[0],
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    write_ray_address(cluster.gcs_address, folder)  # else jobs may find another Ray of this machine
    started = [cluster.head_node]
    for address, node in zip(addresses[1:], nodes[1:], strict=True):
        started.append(cluster.add_node(node_ip_address=address, temp_dir=folder, **node))
    facts = {
        "url": f"http://127.0.0.1:{head['dashboard_port']}",
        "gcs_address": cluster.gcs_address,
        "node_ids": [node.node_id for node in started],
    }
    print(json.dumps(facts), flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]))
