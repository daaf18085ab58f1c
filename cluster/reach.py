"""Checks within a deadline that the cluster answers, before a run joins it.

`ray.init` waits for a cluster that is gone for a quarter of an hour. No Ray is imported here.
"""

from __future__ import annotations

import ipaddress
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from mgrpo.config import ClusterConfig
from mgrpo.errors import ClusterError

PROBE = Path(__file__).with_name("gcs_probe.py")
JOB_SERVER = ("http://", "https://")


def await_cluster(config: ClusterConfig) -> str:
    """The address of the cluster that the run joins, once it answers.

    Raises:
        ClusterError: it does not within `cluster.deadlines.connect_s`, or the address is none.
    """
    address, deadline_s = config.joins, config.deadlines.connect_s
    assert address is not None, "the run starts a Ray of its own"
    if address.startswith(JOB_SERVER):
        raise ClusterError(
            f"{origin(config)} is {address}, a job server's address, which is for `mgrpo submit`. "
            "A run joins a cluster at HOST:6379, the address of its head. To start a local Ray for "
            "this run only: cluster.address=local."
        )
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(PROBE), address, str(deadline_s)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=deadline_s,
        )
        output, answers = done.stdout, done.returncode == 0
    except subprocess.TimeoutExpired as error:
        output, answers = error.stdout or b"", False
    if not answers:
        said = output.decode(errors="replace").strip().splitlines() or ["no answer"]
        raise ClusterError(
            cannot_connect(config, f"{said[-1]} (cluster.deadlines.connect_s is {deadline_s:g}).")
        )
    return address


def open_to_all(head: str, environment: Mapping[str, str]) -> str:
    """A warning for a cluster that is joined without a token; "" where that is safe.

    Args:
        head: HOST:PORT of the cluster's head, or its address as ray://HOST:PORT.
        environment: this process's, with which the cluster was joined.
    """
    host = head.rpartition("/")[2].rpartition(":")[0].strip("[]")
    if environment.get("RAY_AUTH_MODE") == "token" or is_loopback(host):
        return ""
    return (
        f"the Ray cluster at {head} asks for no token: whoever reaches its ports runs programs on "
        "its nodes. Start it with RAY_AUTH_MODE=token on each node (docs/guides/jobs.md, Tokens)"
    )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"


def cannot_connect(config: ClusterConfig, reason: str) -> str:
    """The error message for a cluster that cannot be joined."""
    first_unset = "unset RAY_ADDRESS, or " if config.takes_environment else ""
    return (
        f"Cannot connect to the Ray cluster at {config.joins!r} (from {origin(config)}): {reason} "
        "Check that it runs (`ray status`). If it requires a token, check that RAY_AUTH_MODE=token "
        "is set here and that RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH holds that token. To start a "
        f"local Ray for this run only: {first_unset}cluster.address=local."
    )


def origin(config: ClusterConfig) -> str:
    return "RAY_ADDRESS" if config.takes_environment else "cluster.address"
