"""A run kept on an S3 server, stopped on one machine and gone on with on another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from mgrpo.metrics.log import read_metrics
from tests.end_to_end.test_resume import REPOSITORY
from tests.s3_server import s3_environment

pytestmark = [pytest.mark.storage, pytest.mark.timeout(600)]


def start(recipe: Path, machine: Path, address: str, output: Path) -> subprocess.Popen[bytes]:
    """`mgrpo train` on a machine of its own, as far as files go."""
    with output.open("wb") as log:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "mgrpo", "train", str(recipe)),
                f"output.local_runs_dir={machine}",
            ],
            cwd=REPOSITORY,
            env=os.environ | s3_environment(address),
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def test_a_run_in_s3_goes_on_where_another_machine_left_it(
    s3_server: str, tree: dict[str, Any], tmp_path: Path
) -> None:
    import fsspec

    settings = {
        "name": "moved",
        "steps": 6,
        "output": {**tree["output"], "runs_dir": "s3://bucket/runs", "report": True},
        "checkpoints": {"every_steps": 2},
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**tree, **settings}))
    first, second = tmp_path / "first", tmp_path / "second"

    cut = start(recipe, first, s3_server, tmp_path / "first.log")
    deadline = time.monotonic() + 240
    while not any(len(f.read_text().splitlines()) > 2 for f in first.rglob("metrics.jsonl")):
        assert cut.poll() is None and time.monotonic() < deadline, said(tmp_path / "first.log")
        time.sleep(0.05)
    os.kill(cut.pid, signal.SIGTERM)
    assert cut.wait(timeout=200) == 143, said(tmp_path / "first.log")
    storage = fsspec.filesystem("s3")
    kept = sorted(Path(path).name for path in storage.ls("bucket/runs/moved/checkpoints"))
    assert kept and int(kept[-1].removeprefix("step-")) >= 3

    whole = start(recipe, second, s3_server, tmp_path / "second.log")
    assert whole.wait(timeout=300) == 0, said(tmp_path / "second.log")
    text = (tmp_path / "second.log").read_text(encoding="utf-8", errors="replace")
    assert f"fetching s3://bucket/runs/moved/checkpoints/{kept[-1]}" in text
    assert "kept at s3://bucket/runs/moved" in text
    (folder,) = {path.parent for path in second.rglob("metrics.jsonl")}
    rows = read_metrics(folder)
    assert [row["step"] for row in rows] == list(range(6))  # the first machine's steps too
    assert rows[-1]["policy_version"] == 6
    left = {path.removeprefix("bucket/runs/moved/") for path in storage.find("bucket/runs/moved")}
    assert {"report.html", "policy/model.safetensors", "metrics.jsonl", "config.yaml"} <= left
    assert storage.cat("bucket/runs/moved/metrics.jsonl").count(b"\n") == 6


def said(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-4000:]
