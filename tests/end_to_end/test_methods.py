"""Every recipe under recipes/methods/ passes `mgrpo check` and trains: `mgrpo train`, real engines
and learner, few steps. `train` checks first and does not start where that fails.

    make test-methods
    make test-methods ARGS="-k gspo"

The default suite checks some of them.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mgrpo.check import check_recipe
from mgrpo.config.load import load_recipe
from mgrpo.methods.catalog import method_files
from mgrpo.methods.gcpo.answer_contexts import AnswerContexts
from mgrpo.metrics.log import read_metrics, read_rollouts, rollout_paths
from mgrpo.types import Completion

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = sorted(method_files())
NEEDS_MORE = ("ws_grpo",)  # a scorer that is trained first: it has a test of its own
SMALL = (
    "prompts_per_step=4",
    "data.train.size=60",
    "data.heldout=null",
    "learner.warmup_steps=1",
    "output.report=false",
    "output.rollouts_per_step=4",
    "engines.shared=true",  # a chain starts one engine, not one for each layer
    "checkpoints.every_steps=0",
)
OWN_SETTINGS = {
    # Both kinds of steps: the pool is full after the first.
    "scrpo": ("steps=4", "source.capacity=8"),
    # Both stages.
    "score": ("steps=3", "phases.0.from_step=1"),
    "mgrpo_replay": ("steps=3",),
    # Two whole turns of rollouts and pairs.
    "veripo": (
        "steps=8",
        "phases.0.from_step=2",
        "phases.0.num_steps=2",
        "phases.0.every_steps=4",
        "source.pairs_per_step=4",
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if place % 8 == 0 else [pytest.mark.methods])
        for place, name in enumerate(RECIPES)
        if name not in NEEDS_MORE
    ],
)
def test_a_recipe_of_a_method_passes_the_check(name: str) -> None:
    """In this process, which has imported everything: the command's own work."""
    report = check_recipe(load_recipe(f"methods/{name}", small(name)))
    assert not report.failures
    assert not [line for line in report.lines if line.status == "warn" and line.name == "plugins"]


def small(name: str) -> tuple[str, ...]:
    """A short run's settings; its few problems are at most two minibatches."""
    minibatches = load_recipe(f"methods/{name}").objective.minibatches
    return (*SMALL, f"objective.minibatches={min(2, minibatches)}")


def mgrpo(*arguments: str) -> str:
    """Run the command line; its output, or a failure that shows it."""
    done = subprocess.run(
        [sys.executable, "-m", "mgrpo", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def train(name: str, folder: Path, *settings: str) -> Path:
    own = OWN_SETTINGS.get(name, ("steps=2",))
    mgrpo("train", f"methods/{name}", *small(name), *own, *settings, f"output.runs_dir={folder}")
    return folder / name


def completions_of(run_dir: Path) -> list[Completion]:
    return [one for path in rollout_paths(run_dir).values() for one in read_rollouts(path)]


@pytest.mark.timeout(900)
@pytest.mark.methods
@pytest.mark.parametrize("name", [name for name in RECIPES if name not in NEEDS_MORE])
def test_a_recipe_of_a_method_trains(name: str, tmp_path: Path) -> None:
    run_dir = train(name, tmp_path)
    rows = read_metrics(run_dir)
    assert rows and any(row.get("learner/grad_norm", 0) > 0 for row in rows)
    assert (run_dir / "policy" / "model.safetensors").is_file()
    CHECKS.get(name, lambda run_dir, rows: None)(run_dir, rows)


def check_edge_grpo(run_dir: Path, rows: list[dict[str, Any]]) -> None:
    """Repaired completions are there, checked again, and their injected tokens are marked."""
    repaired = [one for one in completions_of(run_dir) if one.augmented_by]
    assert {one.augmented_by for one in repaired} <= {"continued", "answer_injected"}
    assert repaired
    for one in repaired:
        assert one.sampled_mask is not None and not all(one.sampled_mask)
        assert len(one.sampled_mask) == len(one.token_ids) == len(one.rollout_logprobs)
        if one.augmented_by == "answer_injected":
            assert one.is_correct


def check_scrpo(run_dir: Path, rows: list[dict[str, Any]]) -> None:
    """Corrections of pooled errors were trained, and only their analyses got credit."""
    kinds = [row["error_pool/is_correction_step"] for row in rows]
    assert kinds[0] == 0.0 and 1.0 in kinds
    corrections = [one for one in completions_of(run_dir) if one.layer == 2]
    assert corrections and all(one.parent_id for one in corrections)
    with_analysis = [one for one in corrections if "analysis" in one.spans]
    for one in with_analysis:
        ((start, end),) = one.spans["analysis"]
        assert start == 0 and 0 < end < len(one.token_ids)
    assert with_analysis
    credited = [row.get("span_credit/credited_fraction", 0.0) for row in rows]
    assert any(0 < value < 1 for value in credited)


def check_score(run_dir: Path, rows: list[dict[str, Any]]) -> None:
    """The first stage trains the first turn by its KL term alone, the second by its reward."""
    assert rows[0]["layer1/advantage_abs_mean"] == 0.0 < rows[1]["layer1/advantage_abs_mean"]


def check_igrpo(run_dir: Path, rows: list[dict[str, Any]]) -> None:
    completions = completions_of(run_dir)
    drafts = [one for one in completions if one.layer == 1]
    assert drafts and not any(one.selected for one in drafts)
    parents = {one.parent_id for one in completions if one.layer == 2}
    by_problem: dict[str, list[Completion]] = {}
    for one in drafts:
        by_problem.setdefault(one.group_key, []).append(one)
    for group in by_problem.values():
        chosen = [one for one in group if one.completion_id in parents]
        assert len(chosen) == 1
        assert chosen[0].is_correct == any(one.is_correct for one in group)


def check_three_layers(run_dir: Path, rows: list[dict[str, Any]]) -> None:
    assert rows[0]["layer3/completions"] == 4 * 4 * 2 * 2
    assert "transition/layer3/wrong_to_right" in rows[0] and "transition/all/delta" in rows[0]


def check_replay(run_dir: Path, rows: list[dict[str, Any]]) -> None:
    assert rows[0]["correction_buffer/replayed"] == 0 < rows[-1]["correction_buffer/replayed"]


def check_veripo(run_dir: Path, rows: list[dict[str, Any]]) -> None:
    """Pairs of what the rollouts left train without sampling, from where the phase began."""
    sampled = [row.get("tokens/generated", 0) > 0 for row in rows]
    assert sampled == [True, True, False, False] * 2
    first = next(row for row in rows if row.get("pairs/trained", 0) > 0)
    assert abs(first["dpo/loss"] - math.log(2)) < 1e-3  # the policy is its own reference there
    assert first["learner/loss"] == pytest.approx(first["dpo/loss"], rel=1e-3)
    sides = [one for one in completions_of(run_dir) if "pair" in one.metadata]
    assert sides
    for one in sides:
        pair = one.metadata["pair"]
        assert one.is_correct == (pair["role"] == 1) or pair["kind"] != "penalty"


def check_gcpo(run_dir: Path, rows: list[dict[str, Any]]) -> None:
    """Every completion came with contexts, and trained once more in its own."""
    for row in rows:
        assert -2 <= row["gcpo/weight_mean"] <= 2 and row["gcpo/kl"] >= 0
    for one in completions_of(run_dir):
        contexts = AnswerContexts(**one.metadata["answer_contexts"])
        assert len(contexts.integrated) == 2 and one.completion_id in contexts.answers


CHECKS = {
    "gcpo": check_gcpo,
    "edge_grpo": check_edge_grpo,
    "igrpo": check_igrpo,
    "mgrpo_replay": check_replay,
    "mgrpo_three_layers": check_three_layers,
    "score": check_score,
    "scrpo": check_scrpo,
    "veripo": check_veripo,
}


@pytest.mark.methods
@pytest.mark.timeout(1200)
def test_ws_grpo_trains_with_a_scorer_made_by_its_command(tmp_path: Path) -> None:
    rollouts = train("grpo", tmp_path, "data.train.size=200", "prompts_per_step=16")
    scorer = tmp_path / "scorer"
    said = mgrpo(
        *("scorer", "train", "--rollouts", str(rollouts), "--model", "default"),
        *("--output", str(scorer), "--epochs", "2"),
    )
    assert "pairs" in said and json.loads((scorer / "config.json").read_text())
    run_dir = train("ws_grpo", tmp_path, f"plugins.1.settings.scorer={scorer}")
    rows = read_metrics(run_dir)
    assert any(row.get("learner/grad_norm", 0) > 0 for row in rows)
    assert all(row["steps/per_completion"] >= 1 and 0 < row["steps/score_mean"] < 1 for row in rows)
    assert all(one.spans["steps"] for one in completions_of(run_dir))
