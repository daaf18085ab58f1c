"""A run that is stopped and started again ends with the numbers of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mgrpo.metrics.log import read_metrics
from tests.end_to_end.test_training import REPOSITORY

NOT_COMPARED = ("seconds/", "pipeline/", "wall_s", "weights/", "mismatch/")


def command(recipe: Path, name: str) -> list[str]:
    return [sys.executable, "-m", "mgrpo", "train", str(recipe), "--run", name]


@pytest.mark.timeout(600)
def test_sigterm_leaves_a_checkpoint_and_the_same_command_ends_with_the_same_policy(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    settings = {
        "steps": 6,
        "output": {**tree["output"], "runs_dir": str(tmp_path)},
        # The only checkpoint is the one that the signal leaves, wherever in a step it comes.
        "checkpoints": {"every_steps": 0},
        # An engine's log-probabilities depend, in the last digit, on what it happens to batch.
        # Without importance weights they do not reach the gradient.
        "objective": {"importance": "none"},
        "learner": {**tree["learner"], "warmup_steps": 4, "schedule": "linear"},
    }
    recipe.write_text(yaml.safe_dump({**tree, **settings}))
    subprocess.run(command(recipe, "whole"), cwd=REPOSITORY, check=True, timeout=300)

    metrics = tmp_path / "cut" / "metrics.jsonl"
    cut = subprocess.Popen(command(recipe, "cut"), cwd=REPOSITORY)
    deadline = time.monotonic() + 240
    while not metrics.is_file() or len(metrics.read_text().splitlines()) < 2:
        assert cut.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(cut.pid, signal.SIGTERM)
    assert cut.wait(timeout=120) == 143
    (checkpoint,) = (tmp_path / "cut" / "checkpoints").iterdir()
    num_done = int(checkpoint.name.removeprefix("step-"))
    assert 2 <= num_done < 6

    said = subprocess.run(
        command(recipe, "cut"), cwd=REPOSITORY, check=True, timeout=300, capture_output=True
    ).stdout.decode()
    assert f"resuming from {checkpoint}" in said
    rows = [read_metrics(tmp_path / name) for name in ("whole", "cut")]
    for expected, found in zip(*rows, strict=True):
        same = {name for name in expected if not name.startswith(NOT_COMPARED)}
        # Sums of many float32 values may differ in the last digit from process to process, and
        # Adam makes more of it where a gradient is near zero. A step moves weights by 1e-2: what
        # is lost of the state, such as Adam's, shows a hundred times above these bounds.
        assert {name: found[name] for name in same} == pytest.approx(
            {name: expected[name] for name in same}, rel=1e-4, abs=1e-6
        )
    weights = [
        load_file(tmp_path / name / "policy" / "model.safetensors") for name in ("whole", "cut")
    ]
    for name, expected in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_made_longer_ends_as_one_that_was_that_long(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    settings = {
        "output": {**tree["output"], "runs_dir": str(tmp_path)},
        "objective": {"importance": "none"},
        "learner": {**tree["learner"], "schedule": "constant"},
    }
    recipe.write_text(yaml.safe_dump({**tree, **settings}))
    for name, length in (("whole", 4), ("longer", 2), ("longer", 4)):
        done = [*command(recipe, name), f"steps={length}", f"rewards.deadline_s={length * 10}"]
        subprocess.run(done, cwd=REPOSITORY, check=True, timeout=300)
    assert [row["step"] for row in read_metrics(tmp_path / "longer")] == [0, 1, 2, 3]
    whole, longer = (
        load_file(tmp_path / name / "policy" / "model.safetensors") for name in ("whole", "longer")
    )
    for name, expected in whole.items():
        torch.testing.assert_close(longer[name], expected, rtol=0, atol=1e-4)
    assert (tmp_path / "longer" / "policy-step-000002" / "model.safetensors").is_file()
