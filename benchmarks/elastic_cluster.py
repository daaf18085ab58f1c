"""A Ray cluster on this machine whose autoscaler (version 2) adds and removes nodes.

Like `ray.cluster_utils.AutoscalingCluster`, with three differences: it ends only the processes
that it started (Ray's class runs `ray stop --force`, which ends every Ray of the machine), all
addresses are loopback ones, and files stand in a folder that goes with the cluster.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
HEAD_ADDRESS = "127.0.0.3"
HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"  # the fake provider's
START_DEADLINE_S = 180
STORE_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True)
class ElasticCluster:
    """A cluster that runs."""

    address: str  # of its GCS
    folder: Path  # Ray's temporary folder

    def environment(self) -> dict[str, str]:
        """What a program needs to use it."""
        kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        own = {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
        return {**kept, **own}  # loopback only, and gone in minutes: no token

    def processes(self) -> list[psutil.Process]:
        """All of the cluster's processes: those that name its folder, and their children."""
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            if process.pid != os.getpid() and self.is_ours(process):
                found[process.pid] = process
                found |= {child.pid: child for child in children(process)}
        return list(found.values())

    def is_ours(self, process: psutil.Process) -> bool:
        try:
            return any(str(self.folder) in word for word in process.cmdline())
        except psutil.Error:
            return False

    def lose_node(self, address: str) -> None:
        """Kill a node like a preempted spot machine: all of its processes, without notice."""
        raylets = [
            process
            for process in self.processes()
            if "raylet" in process.name() and f"--node_ip_address={address}" in process.cmdline()
        ]
        assert len(raylets) == 1, f"{len(raylets)} raylets at {address}"
        for process in [*children(raylets[0]), raylets[0]]:
            end(process)


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def end(process: psutil.Process) -> None:
    with suppress(psutil.Error):  # already gone
        process.send_signal(signal.SIGKILL)


@contextmanager
def elastic_cluster(
    *,
    head: dict[str, float],
    node: dict[str, float],
    max_nodes: int,
    idle_s: float,
) -> Iterator[ElasticCluster]:
    """Start a head whose autoscaler adds up to `max_nodes` nodes; end everything.

    Args:
        head: the head's resources, e.g. {"CPU": 2}.
        node: each further node's.
        max_nodes: beside the head.
        idle_s: an unused node is removed after this time.
    """
    folder = Path(tempfile.mkdtemp(prefix="mgrpo-a-"))  # short: Unix sockets allow 107 bytes
    port = free_port()
    cluster = ElasticCluster(f"{HEAD_ADDRESS}:{port}", folder)
    config = folder / "autoscaling.json"
    config.write_text(json.dumps(autoscaling_config(cluster, head, node, max_nodes, idle_s)))
    try:
        start_head(cluster, config, head, port)
        yield cluster
    finally:
        for process in cluster.processes():
            end(process)
        shutil.rmtree(folder, ignore_errors=True)


def start_head(cluster: ElasticCluster, config: Path, head: dict[str, float], port: int) -> None:
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head"),
        f"--autoscaling-config={config}",
        f"--node-ip-address={HEAD_ADDRESS}",
        f"--port={port}",
        f"--temp-dir={cluster.folder}",
        f"--num-cpus={head.get('CPU', 0):g}",
        f"--num-gpus={head.get('GPU', 0):g}",
        f"--object-store-memory={STORE_BYTES}",
        "--include-dashboard=false",
        "--disable-usage-stats",
    ]
    environment = {
        **cluster.environment(),
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    del environment["RAY_ADDRESS"]
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=START_DEADLINE_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"Ray's head did not start:\n{done.stdout}\n{done.stderr}")


def autoscaling_config(
    cluster: ElasticCluster,
    head: dict[str, float],
    node: dict[str, float],
    max_nodes: int,
    idle_s: float,
) -> dict[str, Any]:
    store = {"object_store_memory": STORE_BYTES}
    return {
        "cluster_name": "elastic",
        "max_workers": max_nodes,
        "upscaling_speed": 10,
        "idle_timeout_minutes": idle_s / 60,
        **{f"{who}setup_commands": [] for who in ("", "head_", "worker_")},
        **{f"{who}_start_ray_commands": [] for who in ("head", "worker")},
        "initialization_commands": [],
        "file_mounts": {},
        "cluster_synced_files": [],
        "auth": {},
        "docker": {},
        "provider": {
            "type": "external",
            "module": "benchmarks.loopback_nodes.LoopbackNodeProvider",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": HEAD_ID,
            "gcs_address": cluster.address,
            "temp_dir": str(cluster.folder),
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": head, "node_config": {}, "max_workers": 0},
            "rollout": {
                "resources": {**node, **store},
                "node_config": {},
                "labels": {"role": "rollout"},
                "min_workers": 0,
                "max_workers": max_nodes,
            },
        },
    }


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind((HEAD_ADDRESS, 0))
        return int(server.getsockname()[1])


def wait_until(condition: Any, what: str, *, timeout_s: float) -> None:
    """Raises TimeoutError naming `what` where the condition does not come true in time."""
    end_at = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_at:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.5)
