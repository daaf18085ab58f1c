"""Grafana, where it is installed: our dashboards and Ray's, on the Prometheus beside it.

It is configured by its environment and a folder of its own: another Grafana of the machine is not
touched.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cluster.monitoring.services import HOST, Service

PORT = 3000  # where Ray's dashboard looks for it, unless RAY_GRAFANA_HOST says otherwise
HERE = Path(__file__).parent
DASHBOARDS, PROVISIONING = HERE / "dashboards", HERE / "provisioning"
PROGRAMS = ("grafana-server", "grafana")
USUAL_HOME = Path("/usr/share/grafana")
HINT = (
    "Grafana is not installed; it is optional (https://grafana.com/grafana/download). Name its "
    "program with --grafana PATH."
)


def find_grafana(program: str | None) -> str | None:
    """The program's path; None where it is not installed."""
    candidates = PROGRAMS if program is None else (program,)
    return next((found for name in candidates if (found := shutil.which(name))), None)


def home_of(program: str) -> Path:
    """Grafana's own files: where its package puts them, or the folder above bin/."""
    unpacked = Path(program).resolve().parents[1]
    return unpacked if (unpacked / "public").is_dir() else USUAL_HOME


def grafana_environment(
    folder: Path, *, prometheus_url: str, ray_dashboards: Path, port: int
) -> dict[str, str]:
    """Grafana's settings: address, folders, and no telemetry."""
    settings = {
        "SERVER_HTTP_ADDR": HOST,
        "SERVER_HTTP_PORT": str(port),
        "PATHS_DATA": str(folder / "grafana"),
        "PATHS_LOGS": str(folder / "grafana"),
        "PATHS_PLUGINS": str(folder / "grafana" / "plugins"),
        "PATHS_PROVISIONING": str(PROVISIONING),
        "DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(DASHBOARDS / "mgrpo-training.json"),
        "AUTH_ANONYMOUS_ENABLED": "true",  # it listens only on this machine
        "AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        "SECURITY_ALLOW_EMBEDDING": "true",  # Ray's dashboard shows Grafana's panels
        "ANALYTICS_REPORTING_ENABLED": "false",
        "ANALYTICS_CHECK_FOR_UPDATES": "false",
        "ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
    }
    return {
        **os.environ,
        **{f"GF_{name}": value for name, value in settings.items()},
        "MGRPO_PROMETHEUS_URL": prometheus_url,
        "MGRPO_DASHBOARDS": str(DASHBOARDS),
        "RAY_DASHBOARDS": str(ray_dashboards),
    }


def start_grafana(program: str, folder: Path, *, prometheus_url: str, port: int) -> Service:
    """Start it on 127.0.0.1; its data and its log are in `folder`."""
    ray_dashboards = folder / "ray-dashboards"
    write_ray_dashboards(ray_dashboards)
    command = [program, f"--homepath={home_of(program)}"]
    if Path(program).name == "grafana":
        command.insert(1, "server")
    return Service(
        "Grafana",
        command,
        url=f"http://{HOST}:{port}",
        ready_path="/api/health",
        log=folder / "grafana.log",
        environment=grafana_environment(
            folder, prometheus_url=prometheus_url, ray_dashboards=ray_dashboards, port=port
        ),
    )


def write_ray_dashboards(folder: Path) -> None:
    """Ray's own dashboard, made here: the cluster's copy may be on another machine."""
    from ray.dashboard.modules.metrics.grafana_dashboard_factory import (
        generate_default_grafana_dashboard,
    )

    folder.mkdir(parents=True, exist_ok=True)
    content, _ = generate_default_grafana_dashboard()
    (folder / "ray.json").write_text(content, encoding="utf-8")
