"""A run on a cluster whose machines are lost: a node with the learner and an engine, or the head.

Three real nodes on addresses of this machine's own; a lost one's processes are killed together.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from mgrpo.metrics.log import read_metrics
from tests.end_to_end.own_head import Head, own_head, short_folder, training

HEAD, LOST, STAYS, JOINS = "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"
LEARNER_ROLE = json.dumps({"role": "learner"})
STEPS, MANY_STEPS = 16, 80  # so many that a lost engine is back before the end
WAIT_S = 400.0
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


@pytest.fixture
def head() -> Iterator[Head]:
    with short_folder() as folder, own_head(folder, HEAD, cpus=0) as running:
        yield running


def add_node(head: Head, address: str, *options: str) -> None:
    """With a folder of its own, as another machine: nodes delete the code of jobs by themselves."""
    folder = head.folder / address.rpartition(".")[2]
    folder.mkdir()
    head.ray(
        *("start", f"--address={head.gcs_address}", f"--node-ip-address={address}"),
        *(f"--temp-dir={folder}", f"--object-store-memory={100 << 20}"),
        *("--disable-usage-stats", *options),
    )


def lose_node(head: Head, address: str) -> None:
    """End a node's processes and all that they have started, at once."""
    raylets = [
        one
        for one in head.processes()
        if one.name() == "raylet" and f"--node_ip_address={address}" in one.cmdline()
    ]
    lost = [each for one in raylets for each in (one, *one.children(recursive=True))]
    assert lost
    for one in lost:
        one.kill()
    psutil.wait_procs(lost, timeout=20)


def recipe_of(head: Head, tree: dict[str, Any], folder: Path, steps: int) -> Path:
    """Two engines with a CPU each, and a rank with one on a node for learners."""
    changes = {
        "steps": steps,
        "output": {**tree["output"], "runs_dir": str(folder)},
        "engines": {"shared": True, "num_shared_engines": 2, "num_cpus": 1},
        "learner": {**tree["learner"], "num_cpus": 1},
        "checkpoints": {"every_steps": 2},
        "cluster": {
            "address": head.gcs_address,
            "device": "cpu",
            "learner_nodes": {"labels": {"role": "learner"}},
            "health": {"heartbeat_s": 1, "suspect_after_s": 5, "dead_after_s": 20},
        },
    }
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**tree, **changes}))
    return recipe


def await_steps(run: subprocess.Popen[str], folder: Path, number: int) -> None:
    await_true(lambda: steps_of(folder)[-1:] >= [number], run)


def await_true(condition: Callable[[], bool], run: subprocess.Popen[str]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert run.poll() is None and time.monotonic() < end
        time.sleep(0.1)


def steps_of(folder: Path) -> list[int]:
    is_there = (folder / "run" / "metrics.jsonl").is_file()
    return [row["step"] for row in read_metrics(folder / "run")] if is_there else []


def test_a_run_goes_on_over_the_loss_of_the_learners_node(
    head: Head, tree: dict[str, Any], tmp_path: Path
) -> None:
    """With the engine that is left, and the node that joins."""
    add_node(head, LOST, "--num-cpus=2", f"--labels={LEARNER_ROLE}")
    add_node(head, STAYS, "--num-cpus=1")
    with training(head, recipe_of(head, tree, tmp_path, MANY_STEPS)) as (run, log):
        await_steps(run, tmp_path, 3)
        lose_node(head, LOST)
        await_true(lambda: "Restart 1 of" in log.read_text(), run)
        add_node(head, JOINS, "--num-cpus=2", f"--labels={LEARNER_ROLE}")
        code = run.wait(timeout=WAIT_S)
    assert code == 0, log.read_text()[-3000:]
    assert steps_of(tmp_path) == list(range(MANY_STEPS))
    assert read_metrics(tmp_path / "run")[-1]["learner/restarts"] == 1
    engines = [json.loads(line) for line in (tmp_path / "run" / "engines.jsonl").open()]
    assert {STAYS, JOINS} <= {one["node"] for one in engines if one["to"] == "healthy"}


def test_the_same_command_resumes_on_a_new_head(
    head: Head, tree: dict[str, Any], tmp_path: Path
) -> None:
    add_node(head, LOST, "--num-cpus=3", f"--labels={LEARNER_ROLE}")
    recipe = recipe_of(head, tree, tmp_path, STEPS)
    with training(head, recipe) as (run, log):
        await_steps(run, tmp_path, 4)
        head.kill()
        assert run.wait(timeout=WAIT_S) not in (0, None)
    assert steps_of(tmp_path)[-1] < STEPS - 1, "it was over before"
    head.start()
    add_node(head, JOINS, "--num-cpus=3", f"--labels={LEARNER_ROLE}")
    with training(head, recipe) as (run, log):
        code = run.wait(timeout=WAIT_S)
    assert code == 0 and "resuming from" in log.read_text(), log.read_text()[-3000:]
    assert steps_of(tmp_path) == list(range(STEPS))
