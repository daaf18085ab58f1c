"""Engine and learner that have their memory in turn, with real parts; here both are on a CPU.

vLLM's CPU engine keeps its memory when it sleeps. All else is as on a GPU: the order of things,
an engine that stops working, and DeepSpeed's states, which leave and come back.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mgrpo.commands.evaluate import evaluate_command
from mgrpo.metrics.log import read_evaluations, read_metrics
from mgrpo.training.run import run_training
from tests.end_to_end.conftest import recipe

MOVED = re.compile(r"engine-0 · (asleep|awake: .*)")


@pytest.mark.slow  # two runs; tests/cluster/weight_sync/test_handover.py has the parts
@pytest.mark.timeout(400)
def test_taking_turns_changes_nothing_of_what_is_learned(
    tree: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heldout = {"heldout": {**tree["data"]["train"], "max_rows": 4}}
    common = {
        "steps": 3,
        "data": {**tree["data"], **heldout},
        "evaluation": {"guidance": "first"},
        "engines": {"shared": True},
        "learner": {**tree["learner"], "zero_stage": 2},
        "checkpoints": {"every_steps": 2},
        "objective": {"kl": {"weight": 0.01}},  # a frozen reference, which moves too
    }
    turns, apart = tmp_path / "turns", tmp_path / "apart"
    run_training(recipe(tree, **common), apart)
    cluster = {**tree["cluster"], "colocate": True}
    run_training(recipe(tree, **common, cluster=cluster), turns)

    for name in sorted(path.name for path in (apart / "rollouts").iterdir()):
        assert tokens(turns / "rollouts" / name) == tokens(apart / "rollouts" / name)
    for with_turns, without in zip(read_metrics(turns), read_metrics(apart), strict=True):
        for key in ("learner/loss", "learner/grad_norm", "layer2/reward_mean", "policy_version"):
            assert with_turns[key] == pytest.approx(without[key], rel=1e-5, abs=1e-7)
        assert with_turns["weights/probe_gap_max"] < 1e-3
    assert [r["acc"] for r in read_evaluations(turns)] == [
        r["acc"] for r in read_evaluations(apart)
    ]
    assert (turns / "checkpoints" / "step-000002").is_dir()

    # One turn at the start and one per step; only with its cache is an engine all awake for vLLM.
    turn = ["asleep", "awake: weights", "awake: kv_cache and all"]
    assert engine_moves(turns) == turn * 4
    assert engine_moves(apart) == []

    # Without a learner there is nobody to take turns with: `mgrpo eval` lets the engine be.
    capsys.readouterr()
    assert evaluate_command(str(turns), as_json=True) == 0
    scored = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert scored["acc"] == read_evaluations(turns)[-1]["acc"]


def tokens(path: Path) -> list[list[int]]:
    return [json.loads(line)["token_ids"] for line in path.open()]


def engine_moves(run_dir: Path) -> list[str]:
    """When the engine slept and woke, by its log."""
    logs = [path.read_text() for path in (run_dir / "logs").glob("*.out")]
    return [move for text in logs for move in MOVED.findall(text)]
