"""A run in a folder whose files are called like our packages; its data have an overlong row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mgrpo.rooms import ROOMS
from tests.end_to_end.conftest import train_in


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
