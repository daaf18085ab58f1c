"""The whole loop with real parts: Ray actors, vLLM engines, DeepSpeed, verified broadcasts.

A run that is stopped and started again ends with the numbers of one that was not.
"""

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
import torch
import yaml
from safetensors.torch import load_file

from mgrpo.commands.evaluate import evaluate_command
from mgrpo.config.load import load_recipe
from mgrpo.metrics.log import read_evaluations, read_metrics
from mgrpo.plan.layout import laid_out_here
from mgrpo.training.run import run_training
from tests.end_to_end.conftest import save_problems, small_tree
from tests.sockets import listening, reached_from_outside

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 10
NOT_COMPARED = (
    "seconds/",
    "learner/restarts",
    "memory/",
    "tokens/per_s",
    "pipeline/",
    "wall_s",
    "weights/",
    "mismatch/",
    *("engines/healthy", "engines/shared_working"),  # of a run that goes on with two
)
COLOCATED = ["cluster.colocate=true", "learner.zero_stage=2"]


def command(recipe: Path, name: str) -> list[str]:
    return [sys.executable, "-m", "mgrpo", "train", str(recipe), "--run", name]


@pytest.fixture(scope="module")
def whole(policy_dir: Path, problems_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, and its run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs")
    tree = small_tree(policy_dir, problems_file)
    others = save_problems(folder / "heldout.jsonl", range(24, 28))
    settings = {
        "steps": STEPS,
        "data": {**tree["data"], "heldout": {"source": "jsonl", "path": str(others)}},
        "evaluation": {"guidance": "first"},
        "output": {"trackers": ["tensorboard"], "report": True, "runs_dir": str(folder)},
        # One per core would be begun at each of the three starts; two of them: test_weights.py.
        "engines": {"shared": True, "num_shared_engines": 1},
        # The only checkpoint is the one that a signal leaves, wherever in a step it comes.
        "checkpoints": {"every_steps": 0},
        # An engine's log-probabilities depend, in the last digit, on what it happens to batch.
        # Without importance weights they do not reach the gradient.
        "objective": {"importance": "none"},
        "learner": {**tree["learner"], "warmup_steps": 2, "schedule": "linear"},
    }
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**tree, **settings}))
    config, _ = laid_out_here(load_recipe(str(recipe)))  # as `mgrpo train` does
    run_training(config, folder / "whole")
    return folder


@pytest.mark.timeout(600)
def test_two_layers_raise_the_reward_of_a_random_policy(whole: Path, policy_dir: Path) -> None:
    run_dir = whole / "whole"
    rows = read_metrics(run_dir)
    assert [row["step"] for row in rows] == list(range(STEPS))
    for layer in (1, 2):
        rewards = [row[f"layer{layer}/reward_mean"] for row in rows]
        assert sum(rewards[-3:]) > 2 * sum(rewards[:3]), rewards
    assert all(row["mismatch/logprob_gap_max"] < 1e-3 for row in rows)
    assert all(row["weights/probe_gap_max"] < 1e-3 for row in rows)
    assert rows[-1]["policy_version"] == STEPS
    assert [row["label"] for row in read_evaluations(run_dir)] == ["before", "after"]
    assert (run_dir / "report.html").stat().st_size > 10_000
    assert list((run_dir / "tensorboard").iterdir())

    completions = [json.loads(line) for line in (run_dir / "rollouts" / "step-000003.jsonl").open()]
    children = [c for c in completions if c["layer"] == 2]
    by_id = {c["completion_id"]: c for c in completions}
    assert children
    for child in children:
        attempt = by_id[child["parent_id"]]["token_ids"]
        attempt = attempt[:-1] if attempt[-1] == 2 else attempt
        assert is_inside(attempt, child["prompt"][0]["token_ids"])
        assert child["version_spans"] == [[0, 3]]
    check_saved_policy(run_dir / "policy", policy_dir)


@pytest.mark.slow  # the command: tests/mgrpo/commands/test_evaluate.py; what is saved: above
@pytest.mark.timeout(600)
def test_an_evaluation_gives_the_accuracies_that_the_run_ended_with(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = whole / "whole"
    capsys.readouterr()
    code = evaluate_command(str(run_dir), max_problems=None, decoding=None, as_json=True)
    assert code == 0
    scored = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert scored["acc"] == read_evaluations(run_dir)[-1]["acc"]


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


def begin(folder: Path, name: str, *overrides: str) -> subprocess.Popen[str]:
    """A run of the same recipe that has done two steps."""
    process = subprocess.Popen(
        [*command(folder / "recipe.yaml", name), *overrides],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for_steps(folder, name, process, 2)
    return process


def wait_for_steps(folder: Path, name: str, run: subprocess.Popen[str], num_steps: int) -> None:
    metrics = folder / name / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not metrics.is_file() or len(metrics.read_text().splitlines()) < num_steps:
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def check_same(folder: Path, name: str) -> None:
    """The run has the metrics and the weights of the uninterrupted one."""
    rows = [read_metrics(folder / run) for run in ("whole", name)]
    for expected, found in zip(*rows, strict=True):
        same = {name for name in expected if not name.startswith(NOT_COMPARED)}
        # Sums of many float32 values may differ in the last digit from process to process, and
        # Adam makes more of it where a gradient is near zero. A step moves weights by 1e-2: what
        # is lost of the state, such as Adam's, shows a hundred times above these bounds.
        assert {name: found[name] for name in same} == pytest.approx(
            {name: expected[name] for name in same}, rel=1e-4, abs=1e-6
        )
    weights = [load_file(folder / run / "policy" / "model.safetensors") for run in ("whole", name)]
    for name, expected in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected, rtol=0, atol=1e-4)


@pytest.mark.processes
@pytest.mark.timeout(600)
def test_a_run_loses_its_learner_is_stopped_and_resumed_and_ends_with_the_same_policy(
    whole: Path,
) -> None:
    cut = begin(whole, "cut")
    (rank,) = ranks_of(cut)
    assert rank.pid in {owner for owner, _ in listening(cut.pid)}
    assert reached_from_outside(cut.pid) == []
    rank.kill()
    wait_for_steps(whole, "cut", cut, 4)
    os.kill(cut.pid, signal.SIGTERM)
    said, _ = cut.communicate(timeout=120)
    assert cut.returncode == 143
    assert "learner-rank-0 died" in said and "Restart 1 of 3" in said
    assert read_metrics(whole / "cut")[-1]["learner/restarts"] == 1
    (checkpoint,) = (whole / "cut" / "checkpoints").iterdir()  # it went on from memory before
    # A signal between a step's metrics and its end leaves the step before: it is repeated.
    assert 3 <= int(checkpoint.name.removeprefix("step-")) < STEPS

    said = subprocess.run(
        [*command(whole / "recipe.yaml", "cut"), "engines.num_shared_engines=2"],
        cwd=REPOSITORY,
        check=True,
        timeout=300,
        capture_output=True,
    ).stdout.decode()
    assert f"resuming from {checkpoint}" in said
    assert "engines.num_shared_engines was 1 and is now 2" in said
    check_same(whole, "cut")
    engines = [row["engines/healthy"] for row in read_metrics(whole / "cut")]
    num_kept = int(checkpoint.name.removeprefix("step-"))
    assert engines == [1.0] * num_kept + [2.0] * (STEPS - num_kept)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("num_ranks", "fault", "settings"),
    [
        (2, signal.SIGKILL, []),
        (1, signal.SIGSTOP, []),
        (1, signal.SIGKILL, COLOCATED),
    ],
)
def test_a_rank_among_others_may_die_and_one_that_hangs_is_replaced(
    whole: Path, num_ranks: int, fault: signal.Signals, settings: list[str]
) -> None:
    name = f"{fault.name}-{num_ranks}-{len(settings)}"
    short = ["cluster.health.suspect_after_s=5", "cluster.health.dead_after_s=15"]
    run = begin(whole, name, f"learner.num_ranks={num_ranks}", *short, *settings)
    ranks = ranks_of(run)
    assert len(ranks) == num_ranks
    ranks[-1].send_signal(fault)
    said, _ = run.communicate(timeout=400)
    assert run.returncode == 0
    assert "Restart 1 of 3" in said
    rows = read_metrics(whole / name)
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert rows[-1]["policy_version"] == STEPS


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_whose_gcs_is_lost_shortly_before_its_end_is_finished(whole: Path) -> None:
    run = begin(whole, "headless")
    wait_for_steps(whole, "headless", run, STEPS - 2)
    for process in psutil.Process(run.pid).children(recursive=True):
        if "gcs_server" in process.name():
            process.kill()
    run.communicate(timeout=200)
    assert run.returncode == 0
    assert (whole / "headless" / "policy" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_whose_gcs_is_lost_early_ends_in_order_with_a_checkpoint(whole: Path) -> None:
    run = begin(whole, "early", "steps=200")
    for process in psutil.Process(run.pid).children(recursive=True):
        if "gcs_server" in process.name():
            process.kill()
    run.communicate(timeout=200)
    assert run.returncode == 4
    (checkpoint,) = (whole / "early" / "checkpoints").iterdir()
    assert checkpoint.name == f"step-{len(read_metrics(whole / 'early')):06d}"


def ranks_of(run: subprocess.Popen[str]) -> list[psutil.Process]:
    return [one for one in psutil.Process(run.pid).children(recursive=True) if is_rank(one)]


def is_rank(process: psutil.Process) -> bool:
    try:
        title = process.cmdline()[0]
        return "LearnerRank" in title or "learner-rank" in title  # idle, in a call
    except (psutil.Error, IndexError):
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_made_longer_on_other_ranks_ends_as_one_that_was_that_long(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    settings = {
        "output": {**tree["output"], "runs_dir": str(tmp_path)},
        "objective": {"importance": "none"},
        "learner": {**tree["learner"], "schedule": "constant"},
    }
    recipe.write_text(yaml.safe_dump({**tree, **settings}))
    two_ranks = ["learner.num_ranks=2", "learner.zero_stage=3"]
    for name, length, ranks in (("whole", 4, []), ("longer", 2, []), ("longer", 4, two_ranks)):
        changes = [f"steps={length}", f"rewards.deadline_s={length * 10}", *ranks]
        done = [*command(recipe, name), *changes]
        said = subprocess.run(
            done, cwd=REPOSITORY, check=True, timeout=300, capture_output=True, text=True
        ).stdout
    assert "learner.num_ranks was 1 and is now 2" in said
    assert [row["step"] for row in read_metrics(tmp_path / "longer")] == [0, 1, 2, 3]
    whole, longer = (
        load_file(tmp_path / name / "policy" / "model.safetensors") for name in ("whole", "longer")
    )
    for name, expected in whole.items():
        torch.testing.assert_close(longer[name], expected, rtol=0, atol=1e-4)
    assert (tmp_path / "longer" / "policy-step-000002" / "model.safetensors").is_file()


@pytest.mark.timeout(400)
@pytest.mark.slow  # the run above that is cut is stopped by SIGTERM, too
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
