from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.monitoring.grafana import find_grafana, grafana_environment, home_of
from cluster.monitoring.prometheus import prometheus_config
from cluster.monitoring.services import Service, choose_port
from mgrpo.cli import main
from mgrpo.errors import ClusterError
from tests.contracts.sources import ROOT

DEADLINE_S = 60
TOKEN = "the-token-of-the-cluster"
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="Prometheus is not installed"
)


class RayDashboard(http.server.BaseHTTPRequestHandler):
    """What a Ray dashboard says to Prometheus: its nodes, to those with the token."""

    def do_GET(self) -> None:
        is_list = self.path == "/api/prometheus/sd"
        if is_list and self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.send_error(403 if self.headers["Authorization"] else 401)
            return
        port = self.server.server_address[1]
        nodes = [{"labels": {"job": "ray"}, "targets": [f"127.0.0.1:{port}"]}]
        body = json.dumps(nodes).encode() if is_list else b'ray_mgrpo_step{run="r"} 3\n'
        self.send_response(200)
        self.send_header("Content-Type", "application/json" if is_list else "text/plain")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


@pytest.fixture
def ray_dashboard() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RayDashboard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def own_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)


def program(path: Path, text: str) -> Path:
    """An executable Python program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_without_prometheus_it_says_how_to_install_it(capsys):
    assert main(["dashboard", "--prometheus", "no-such-prometheus"]) == 4
    said = capsys.readouterr().err
    assert "no program 'no-such-prometheus'" in said
    assert "apt-get install prometheus" in said and "--prometheus PATH" in said


def test_without_a_cluster_it_says_what_to_give(capsys):
    port = choose_port(None, 1)  # nobody listens there
    address = f"http://127.0.0.1:{port}"
    assert main(["dashboard", "--prometheus", "true", "--address", address]) == 4
    said = capsys.readouterr().err
    assert f"Nothing answers at {address}" in said and "cluster.dashboard: true" in said


def test_a_wrong_token_is_told_without_showing_it(capsys, monkeypatch, ray_dashboard):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another-token")
    assert main(["dashboard", "--prometheus", "true", "--address", ray_dashboard]) == 4
    said = capsys.readouterr().err
    assert "requires a token. the token from RAY_AUTH_TOKEN was refused." in said
    assert "another-token" not in said


def test_what_is_no_ray_dashboard_is_said_to_be_none(capsys, tmp_path):
    class NotRay(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *arguments: Any) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), NotRay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    assert main(["dashboard", "--prometheus", "true", "--address", address]) == 4
    server.shutdown()
    server.server_close()
    assert f"No Ray dashboard (status 404) answers at {address}" in capsys.readouterr().err


def test_a_port_that_is_taken_is_refused(ray_dashboard):
    taken = int(ray_dashboard.rpartition(":")[2])
    with pytest.raises(ClusterError, match=f"Port {taken} of 127.0.0.1 is in use"):
        choose_port(taken, 9090)
    assert choose_port(None, taken) != taken


def test_prometheus_gets_the_nodes_from_ray_with_the_token():
    config = yaml.safe_load(prometheus_config("http://head:8265", Path("/t/token")))
    (job,) = config["scrape_configs"]
    (discovery,) = job["http_sd_configs"]
    assert discovery["url"] == "http://head:8265/api/prometheus/sd"
    # Prometheus 2.42 sends the bare token where the type is left out.
    assert discovery["authorization"] == {"type": "Bearer", "credentials_file": "/t/token"}
    without = yaml.safe_load(prometheus_config("http://head:8265", None))
    assert "authorization" not in without["scrape_configs"][0]["http_sd_configs"][0]


def test_a_program_that_ends_at_its_start_is_told_with_its_last_words(tmp_path):
    failing = program(tmp_path / "failing", "raise SystemExit('no room for data')")
    service = Service(
        "Prometheus",
        [str(failing)],
        url="http://127.0.0.1:9",
        ready_path="/",
        log=tmp_path / "log",
    )
    with pytest.raises(ClusterError, match=r"at its start with exit code 1\.\n  no room for data"):
        service.wait_until_ready(20)


def test_a_program_that_does_not_answer_is_given_up_and_can_be_killed(tmp_path):
    deaf = program(
        tmp_path / "deaf",
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('deaf', flush=True)\ntime.sleep(60)",
    )
    service = Service(
        "Deaf", [str(deaf)], url="http://127.0.0.1:9", ready_path="/", log=tmp_path / "log"
    )
    with pytest.raises(ClusterError, match=r"Deaf did not answer at .* within 1 s\. Raise --dead"):
        service.wait_until_ready(1)
    service.stop(0.2)
    assert not service.is_running


def test_ctrl_c_at_the_start_leaves_nothing_behind(ray_dashboard, tmp_path):
    pid_file = tmp_path / "pid"
    never_ready = program(
        tmp_path / "prometheus",
        f"import os, time\nopen({str(pid_file)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)",
    )
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mgrpo", "dashboard", "--address", ray_dashboard),
            *("--prometheus", str(never_ready), "--data", str(tmp_path / "data")),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + DEADLINE_S
    while not (pid_file.exists() and pid_file.read_text()):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, said) == (0, "ended\n")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert not (tmp_path / "data" / "token").exists()


# A stand-in for Grafana: answers as it does, and shows what it was told.
GRAFANA = """
import http.server, json, os, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        told = {k: v for k, v in os.environ.items() if k.startswith(("GF_", "MGRPO_", "RAY_DASH"))}
        self.send_response(200); self.end_headers()
        self.wfile.write(json.dumps({"told": told, "arguments": sys.argv[1:]}).encode())
    def log_message(self, *arguments): pass
address = os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"])
http.server.HTTPServer(address, Answer).serve_forever()
"""


@pytest.mark.cluster
@needs_prometheus
def test_it_starts_prometheus_and_grafana_says_where_and_ends_both(ray_dashboard, tmp_path):
    grafana = program(tmp_path / "grafana-13" / "bin" / "grafana", GRAFANA)
    (tmp_path / "grafana-13" / "public").mkdir()
    data = tmp_path / "data"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mgrpo", "dashboard", "--address", ray_dashboard),
            *("--grafana", str(grafana), "--data", str(data)),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    try:
        urls = said_urls(process)
        assert urls["Ray dashboard"] == ray_dashboard
        with urllib.request.urlopen(urls["Grafana"], timeout=DEADLINE_S) as answer:
            told = json.load(answer)
        assert told["arguments"] == ["server", f"--homepath={tmp_path / 'grafana-13'}"]
        assert told["told"]["MGRPO_PROMETHEUS_URL"] == urls["Prometheus"]
        boards = sorted(path.name for path in Path(told["told"]["MGRPO_DASHBOARDS"]).iterdir())
        assert "mgrpo-training.json" in boards
        assert [path.name for path in Path(told["told"]["RAY_DASHBOARDS"]).iterdir()] == [
            "ray.json"
        ]
        wait_for_step(urls["Prometheus"])
        assert (data / "token").stat().st_mode & 0o077 == 0  # nobody else reads it
        for _ in range(5):  # somebody impatient
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait(timeout=DEADLINE_S)
    for url in (urls["Prometheus"], urls["Grafana"]):
        with pytest.raises(OSError):
            urllib.request.urlopen(url, timeout=5)
    assert not (data / "token").exists() and (data / "prometheus").is_dir()


def said_urls(process: subprocess.Popen[str]) -> dict[str, str]:
    """What it says before it waits, by the words before each address."""
    assert process.stdout is not None
    urls: dict[str, str] = {}
    for line in process.stdout:
        if line.startswith("Ctrl-C"):
            break
        name, address = line[:15].strip(), line[15:].split()[0]
        urls[name] = address
    return urls


def wait_for_step(prometheus: str) -> None:
    end = time.monotonic() + DEADLINE_S
    query = f"{prometheus}/api/v1/query?query=ray_mgrpo_step"
    while True:
        with urllib.request.urlopen(query, timeout=DEADLINE_S) as answer:
            found = json.load(answer)["data"]["result"]
        if found or time.monotonic() > end:
            break
        time.sleep(0.5)
    assert found and found[0]["value"][1] == "3"


def test_grafana_listens_to_this_machine_alone_and_calls_nobody(tmp_path):
    told = grafana_environment(
        tmp_path, prometheus_url="http://127.0.0.1:1", ray_dashboards=tmp_path, port=3000
    )
    assert told["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert told["GF_ANALYTICS_REPORTING_ENABLED"] == "false"
    assert told["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_grafana_is_looked_for_by_its_usual_names(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_grafana(None) is None
    server = program(tmp_path / "grafana-server", "")
    assert find_grafana(None) == str(server)
    assert home_of(str(server)) == Path("/usr/share/grafana")
