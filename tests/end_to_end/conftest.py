from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mgrpo.config import RunConfig
from mgrpo.metrics.log import read_metrics
from mgrpo.rooms import ROOT
from tests.random_policy import save_random_policy


@pytest.fixture(scope="session")
def policy_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="session")
def problems_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_problems(tmp_path_factory.mktemp("data") / "problems.jsonl", range(24))


def save_problems(path: Path, numbers: Iterable[int]) -> Path:
    rows = [{"question": f"What is {i} plus {i + 1}?", "answer": str(2 * i + 1)} for i in numbers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tree(policy_dir: Path, problems_file: Path) -> dict[str, Any]:
    """A recipe for a random policy, as plain values that a test may change."""
    return small_tree(policy_dir, problems_file)


def small_tree(policy_dir: Path, problems_file: Path) -> dict[str, Any]:
    layer = {"max_completion_tokens": 12, "system_prompt": ""}
    correct = {**layer, "select": "none", "skip_truncated_parents": False}
    return {
        "name": "tiny",
        "steps": 2,
        "prompts_per_step": 6,
        "model": {"path": str(policy_dir), "dtype": "float32"},
        "data": {"train": {"source": "jsonl", "path": str(problems_file)}},
        "layers": [
            {"name": "solve", "group_size": 4, **layer},
            {"name": "correct", "group_size": 2, **correct},
        ],
        "rewards": {"terms": [{"check": "tests.end_to_end.rewards:digits"}]},
        "learner": {"learning_rate": 1e-2},
        "cluster": {"address": "local", "device": "cpu"},
        "output": {"trackers": [], "report": False},
    }


def recipe(tree: dict[str, Any], **changes: Any) -> RunConfig:
    return RunConfig.model_validate({**tree, **changes})


def train_in(folder: Path, tree: dict[str, Any], *options: str) -> tuple[list[dict[str, Any]], str]:
    """The metrics of `mgrpo train` with a recipe in a folder, and what it wrote to stderr."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    done = subprocess.run(
        [sys.executable, "-m", "mgrpo", "train", "recipe.yaml", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return read_metrics(folder / "runs" / tree["name"]), done.stderr
