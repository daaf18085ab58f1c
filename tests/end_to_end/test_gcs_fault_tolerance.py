"""A head whose GCS keeps its tables in Redis loses its GCS under a run, and gets another one.

Needs Debian's package redis-server.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from mgrpo.metrics.log import read_metrics
from tests.end_to_end.local_cluster import free_port
from tests.end_to_end.own_head import Head, own_head, short_folder, training

ADDRESS = "127.0.0.2"
STEPS = 30  # so that some come after the GCS is back
DOWN_S = 5.0
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server"),
]


@contextmanager
def redis(folder: Path, password: str) -> Iterator[int]:
    port = free_port(ADDRESS)
    command = ["redis-server", "--bind", ADDRESS, "--port", str(port), "--requirepass", password]
    process = subprocess.Popen([*command, "--save", "", "--dir", str(folder)])
    try:
        yield port
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture
def head() -> Iterator[Head]:
    password = secrets.token_hex(16)
    with short_folder() as folder, redis(folder, password) as redis_port:
        variables = {"RAY_REDIS_ADDRESS": f"{ADDRESS}:{redis_port}"}
        option = f"--redis-password={password}"
        with own_head(folder, ADDRESS, option, variables=variables) as running:
            yield running


def wait_until(condition: Callable[[], bool], run: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 400
    while not condition():
        assert run.poll() is None and time.monotonic() < end
        time.sleep(0.1)


def test_a_run_goes_on_over_the_loss_of_a_gcs_that_comes_back(
    head: Head, tree: dict[str, Any], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    output = {**tree["output"], "runs_dir": str(tmp_path)}
    cluster = {"address": head.gcs_address, "device": "cpu"}
    shared = {"shared": True, "num_shared_engines": 1}
    changes = {"steps": STEPS, "output": output, "cluster": cluster, "engines": shared}
    recipe.write_text(yaml.safe_dump({**tree, **changes}))
    with training(head, recipe) as (run, log):
        metrics = tmp_path / "run" / "metrics.jsonl"
        wait_until(lambda: metrics.is_file() and len(read_metrics(tmp_path / "run")) > 1, run)
        gcs = head.gcs()
        command, environment = gcs.cmdline(), gcs.environ()
        gcs.kill()
        time.sleep(DOWN_S)
        assert len(read_metrics(tmp_path / "run")) < STEPS
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd=head.folder)
        code = run.wait(timeout=400)
    assert code == 0, log.read_text()[-3000:]
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert rows[-1]["learner/restarts"] == 0
    status = head.ray("status", f"--address={head.gcs_address}")
    assert "4.0 CPU" in status.replace("/", " ")  # the same node, known to the new GCS
