"""A real run in which nothing moves any more: where each process is, is written, and it ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.chaos.processes import kind_of, title_of
from mgrpo.metrics.log import read_metrics
from mgrpo.storage.checkpoints import checkpoints, newest_whole
from mgrpo.training.watchdog import DRIVER, HANGS_DIR, SUMMARY

REPOSITORY = Path(__file__).resolve().parents[2]
LONG_S = 900
"""Of the deadlines that would mend it."""
OVERRIDES = (
    *("prompts_per_step=2", "layers.0.group_size=2", "layers.1.group_size=2"),
    *("layers.0.max_completion_tokens=16", "layers.1.max_completion_tokens=16"),
    *("data.heldout=null", "checkpoints.every_steps=0", "output.report=false"),
    *("engines.num_shared_engines=1", "rewards.num_processes=1", "steps=1000"),
    *("cluster.address=local", "cluster.device=cpu"),
    f"cluster.health={{suspect_after_s: {LONG_S}, dead_after_s: {2 * LONG_S}}}",
    f"cluster.deadlines.generate_s={LONG_S}",
    "cluster.watchdog={after_s: 30, action: checkpoint_and_stop}",
)


@pytest.mark.processes
@pytest.mark.timeout(900)
def test_a_run_that_stands_still_leaves_its_stacks_and_a_checkpoint_and_ends(
    tmp_path: Path,
) -> None:
    run_dir = tmp_path / "still"
    command = [sys.executable, "-m", "mgrpo", "train", "quickstart", "--run", "still"]
    run = subprocess.Popen(
        [*command, f"output.runs_dir={tmp_path}", *OVERRIDES],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for_steps(run, run_dir, 2)
        (core,) = processes(run, "EngineCore")
        (rank,) = processes(run, "learner rank")
        (actor,) = processes(run, "engine actor")
        core.send_signal(signal.SIGSTOP)
        said, _ = run.communicate(timeout=600)
    finally:
        run.kill()
    assert run.returncode == 128 + signal.SIGTERM, said
    assert "no progress for" in said and "cluster.watchdog.after_s" in said

    (hang,) = (run_dir / HANGS_DIR).iterdir()
    summary = (hang / SUMMARY).read_text()
    assert re.search(r"^engine-0: \w+ for \d+ s", summary, re.MULTILINE), summary
    assert "requests wait for an engine" in summary
    assert "learner-rank-0" in summary
    assert "in write_dump" in (hang / DRIVER).read_text()
    stacks = {int(file.name.partition("-")[0]): file.read_text() for file in hang.glob("*/*.txt")}
    for process in (run, core, rank, actor):
        assert "state: " in stacks[process.pid] and "(" in stacks[process.pid]
    assert "state: stopped" in stacks[core.pid]

    (checkpoint,) = checkpoints(run_dir)
    assert newest_whole(run_dir) == (checkpoint, [])
    assert checkpoint.name == f"step-{len(read_metrics(run_dir)):06d}"
    assert not psutil.pid_exists(core.pid)


def wait_for_steps(run: subprocess.Popen[str], run_dir: Path, num_steps: int) -> None:
    end = time.monotonic() + 500
    while not (run_dir / "metrics.jsonl").is_file() or len(read_metrics(run_dir)) < num_steps:
        assert run.poll() is None and time.monotonic() < end
        time.sleep(0.05)


def processes(run: subprocess.Popen[str], kind: str) -> list[psutil.Process]:
    children = psutil.Process(run.pid).children(recursive=True)
    return [one for one in children if kind_of(title_of(one)) == kind]
