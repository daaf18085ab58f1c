"""The whole loop with real parts: Ray actors, vLLM engines, DeepSpeed, verified broadcasts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from mgrpo.commands.evaluate import evaluate_command
from mgrpo.metrics.log import read_evaluations, read_metrics
from mgrpo.training.run import run_training
from tests.end_to_end.conftest import recipe

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(600)
def test_two_layers_raise_the_reward_of_a_random_policy(
    tree: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heldout = {"heldout": {**tree["data"]["train"], "max_rows": 4}}
    config = recipe(
        tree,
        steps=10,
        data={**tree["data"], **heldout},
        evaluation={"guidance": "first"},
        output={"trackers": ["tensorboard"], "report": True},
    )
    run_training(config, tmp_path)

    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == list(range(10))
    for layer in (1, 2):
        rewards = [row[f"layer{layer}/reward_mean"] for row in rows]
        assert sum(rewards[-3:]) > 2 * sum(rewards[:3]), rewards
    assert all(row["mismatch/logprob_gap_max"] < 1e-3 for row in rows)
    assert all(row["weights/probe_gap_max"] < 1e-3 for row in rows)
    assert rows[-1]["policy_version"] == 10
    assert [row["label"] for row in read_evaluations(tmp_path)] == ["before", "after"]
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert list((tmp_path / "tensorboard").iterdir())

    completions = [
        json.loads(line) for line in (tmp_path / "rollouts" / "step-000003.jsonl").open()
    ]
    children = [c for c in completions if c["layer"] == 2]
    by_id = {c["completion_id"]: c for c in completions}
    assert children
    for child in children:
        attempt = by_id[child["parent_id"]]["token_ids"]
        attempt = attempt[:-1] if attempt[-1] == 2 else attempt
        assert is_inside(attempt, child["prompt"][0]["token_ids"])
        assert child["version_spans"] == [[0, 3]]
    check_saved_policy(tmp_path / "policy", Path(tree["model"]["path"]))

    # vLLM loads what was saved, and `mgrpo eval` gives the accuracies that the run ended with.
    capsys.readouterr()
    code = evaluate_command(str(tmp_path), max_problems=None, decoding=None, as_json=True)
    assert code == 0
    scored = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert scored["acc"] == read_evaluations(tmp_path)[-1]["acc"]


def is_inside(part: list[int], whole: list[int]) -> bool:
    return any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))


def check_saved_policy(saved: Path, start: Path) -> None:
    """transformers loads it, and it is not the policy that the run started from."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (start, saved))
    moved = [
        name
        for (name, a), (_, b) in zip(
            before.named_parameters(), after.named_parameters(), strict=True
        )
        if not a.equal(b)
    ]
    assert len(moved) > 10
    assert AutoTokenizer.from_pretrained(saved).chat_template


@pytest.mark.timeout(400)
def test_layer_by_layer_updates_with_a_shared_engine_and_two_zero_ranks(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    config = recipe(
        tree,
        engines={"shared": True},
        learner={**tree["learner"], "num_ranks": 2, "zero_stage": 3},
        objective={"update_order": "sequential", "kl": {"weight": 0.01}},
    )
    run_training(config, tmp_path)
    rows = read_metrics(tmp_path)
    assert [row["policy_version"] for row in rows] == [2, 4]  # one update per layer and step
    versions = {
        (c["layer"], c["version_spans"][0][1])
        for c in map(json.loads, (tmp_path / "rollouts" / "step-000001.jsonl").open())
    }
    assert versions == {(1, 2), (2, 3)}  # layer 2 was sampled from the refreshed policy
    assert all(row["weights/probe_gap_max"] < 1e-3 for row in rows)


@pytest.mark.timeout(400)
@pytest.mark.slow  # test_resume stops a run by SIGTERM, too
def test_sigterm_ends_a_run_cleanly(tree: dict[str, Any], tmp_path: Path) -> None:
    recipe_file = tmp_path / "recipe.yaml"
    runs = {"runs_dir": str(tmp_path / "runs"), "trackers": []}
    recipe_file.write_text(yaml.safe_dump({**tree, "steps": 1000, "output": runs}))
    process = subprocess.Popen(
        [sys.executable, "-m", "mgrpo", "train", str(recipe_file), "--run", "stopped"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    run_dir = tmp_path / "runs" / "stopped"
    wait_until(lambda: (run_dir / "metrics.jsonl").is_file() and len(read_metrics(run_dir)) > 1)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) > 5  # Ray, engines, learner, reward processes
    assert {child.nice() for child in children} == {psutil.Process(process.pid).nice()}
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "SIGTERM" in output
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, [p.cmdline() for p in alive]
    assert len(read_metrics(run_dir)) > 1
    assert (run_dir / "report.html").is_file()


def wait_until(condition: Any, *, timeout_s: float = 240) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.5)
