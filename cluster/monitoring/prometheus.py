"""Prometheus for a Ray cluster: the nodes from Ray's service discovery, and our alert rules."""

from __future__ import annotations

import json
import shutil
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import yaml

from cluster.monitoring.services import ANSWER_DEADLINE_S, HOST, Service
from mgrpo.errors import ClusterError

PORT = 9090  # Ray's dashboard looks for it here, unless RAY_PROMETHEUS_HOST is set
RULES = Path(__file__).parent / "alerts.yml"
SCRAPE_INTERVAL = "5s"
RETENTION = "30d"
NOT_INSTALLED = """\
Prometheus is not installed: there is no program {program!r}. Install it (Debian and Ubuntu:
`apt-get install prometheus`, without its service: `systemctl disable --now prometheus`; others:
https://prometheus.io/download/), or say where it is: --prometheus PATH."""


@dataclass(frozen=True, slots=True)
class Target:
    """One node's metrics, as Prometheus sees them."""

    address: str
    is_up: bool
    error: str


def find_prometheus(program: str) -> str:
    """The program's path.

    Raises:
        ClusterError: it is not installed; with how to install it.
    """
    found = shutil.which(program)
    if found is None:
        raise ClusterError(NOT_INSTALLED.format(program=program))
    return found


def prometheus_config(address: str, token_file: Path | None) -> str:
    """prometheus.yml.

    Args:
        address: of Ray's dashboard, which lists the current nodes.
        token_file: file with the cluster's token, if it requires one.
    """
    discovery: dict[str, object] = {
        "url": f"{address}/api/prometheus/sd",
        "refresh_interval": "10s",
    }
    if token_file is not None:
        discovery["authorization"] = {"type": "Bearer", "credentials_file": str(token_file)}
    return yaml.safe_dump(
        {
            "global": {"scrape_interval": SCRAPE_INTERVAL, "evaluation_interval": "15s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "ray", "http_sd_configs": [discovery]}],
        },
        sort_keys=False,
    )


def start_prometheus(
    program: str, folder: Path, *, address: str, token_file: Path | None, port: int, pages: Path
) -> Service:
    """Start it on 127.0.0.1; its data and its log are in `folder`.

    Args:
        program: from `find_prometheus`.
        folder: holds its data afterwards; a used one keeps its earlier data.
        address: of Ray's dashboard.
        token_file: see `prometheus_config`.
        port: on 127.0.0.1.
        pages: a folder that it serves under /user/.
    """
    config = folder / "prometheus.yml"
    config.write_text(prometheus_config(address, token_file), encoding="utf-8")
    command = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--storage.tsdb.retention.time={RETENTION}",
        f"--web.listen-address={HOST}:{port}",
        f"--web.user-assets={pages}",
    ]
    return Service(
        "Prometheus",
        command,
        url=f"http://{HOST}:{port}",
        ready_path="/-/ready",
        log=folder / "prometheus.log",
    )


def targets(url: str) -> list[Target]:
    """The nodes that Prometheus scrapes; [] while it knows none.

    Args:
        url: of Prometheus.

    Raises:
        ClusterError: it does not answer.
    """
    try:
        with urllib.request.urlopen(f"{url}/api/v1/targets", timeout=ANSWER_DEADLINE_S) as answer:
            found = json.load(answer)["data"]["activeTargets"]
    except (OSError, ValueError) as error:
        raise ClusterError(f"Prometheus at {url} does not answer: {error}") from error
    return [
        Target(one["labels"]["instance"], one["health"] == "up", one["lastError"]) for one in found
    ]
