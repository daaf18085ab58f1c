"""Runs of the command line in a folder of the user's: with own files, and from an earlier run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mgrpo.config.load import load_recipe, save_recipe
from mgrpo.rooms import ROOMS
from tests.end_to_end.conftest import recipe, train_in


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_users_rewards_train_and_his_other_files_are_left_alone(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    for room in set(ROOMS) - {"mgrpo", "rewards"}:
        (tmp_path / f"{room}.py").write_text("raise RuntimeError('the wrong file')\n")
    (tmp_path / "rewards.py").write_text(
        "def digits(completion, problem):\n    return sum(map(str.isdigit, completion)) / 20\n"
    )
    problems = Path(tree["data"]["train"]["path"]).read_text()
    overlong = json.dumps({"question": "really? " * 500_000, "answer": "1"})
    (tmp_path / "rows.jsonl").write_text(f"{problems}{overlong}\n")
    changed = {
        **tree,
        "data": {"train": {"source": "jsonl", "path": "rows.jsonl"}, "max_prompt_tokens": 300},
        "rewards": {"terms": [{"check": "rewards:digits"}]},
        "steps": 1,
    }
    rows, said = train_in(tmp_path, changed)
    assert "left out: 1 longer than data.max_prompt_tokens" in said
    assert [row["rewards/scored"] for row in rows] == [1.0]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_trains_on_from_another_one_s_policy(
    tree: dict[str, Any], policy_dir: Path, tmp_path: Path
) -> None:
    earlier = tmp_path / "runs" / "wide"
    shutil.copytree(policy_dir, earlier / "policy")
    save_recipe(recipe(tree, name="wide"), earlier / "config.yaml")
    (earlier / "metrics.jsonl").write_text('{"step": 0}\n')
    rows, _ = train_in(tmp_path, {**tree, "name": "wider"}, "--from", "wide", "steps=2")
    assert [row["step"] for row in rows] == [0, 1]
    begun = load_recipe(tmp_path / "runs" / "wider" / "config.yaml").model
    assert begun.path == str((earlier / "policy").resolve())
    assert begun.from_run == "wide, policy after step 1"
    assert (tmp_path / "runs" / "wider" / "policy" / "model.safetensors").is_file()
