"""Rates of a run that has been: simulated with them, it takes as long as it took."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mgrpo.config.load import load_recipe, save_recipe
from mgrpo.errors import RunDirectoryError
from mgrpo.plan.layouts import with_given
from mgrpo.plan.measured_run import measured_tree
from mgrpo.plan.recipe import plan_recipe
from mgrpo.plan.simulated import simulated

ROW = {
    "seconds/step": 15.0,
    "seconds/rollout": 6.0,
    "seconds/update": 8.0,
    "learner/input_tokens": 16_000.0,
    "layer1/completions": 128.0,
    "layer1/completion_tokens_mean": 30.0,
    "layer1/prompt_tokens_mean": 20.0,
    "layer1/truncated_fraction": 0.0,
    "layer2/completions": 256.0,
    "layer2/completion_tokens_mean": 40.0,
    "layer2/prompt_tokens_mean": 62.0,
    "layer2/truncated_fraction": 0.0,
}
OVERRIDES = (
    "engines.shared=true",
    "engines.max_num_seqs=64",
    "cluster.colocate=false",
    "pipeline.max_staleness_steps=null",
)


def run_of(folder: Path, rows: list[dict[str, float]], *overrides: str) -> Path:
    save_recipe(load_recipe("quickstart", [*OVERRIDES, *overrides]), folder / "config.yaml")
    lines = [json.dumps({"step": step} | row) for step, row in enumerate(rows)]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def test_a_run_simulated_by_its_own_rates_takes_as_long(tmp_path: Path) -> None:
    run = run_of(tmp_path, [ROW] * 5)
    rates = with_given(None, measured_tree(run))
    assert rates.weights_s == pytest.approx(1.0)
    assert rates.learner.token_s == pytest.approx(8.0 / 16_000)
    correct = rates.layers["correct"]
    assert correct.added_prompt_tokens == 12  # 62 - 20 - 30
    assert correct.parent_share == pytest.approx(0.5)  # 256 of the 128 * 4
    recipe = plan_recipe(load_recipe(run / "config.yaml"))
    outcome = simulated(recipe, rates, num_steps=8)
    assert outcome.seconds_per_step == pytest.approx(15.0, rel=0.05)
    assert outcome.learner_busy == pytest.approx(8 / 15, rel=0.05)


def test_overlapped_runs_count_the_longer_part(tmp_path: Path) -> None:
    row = ROW | {"seconds/step": 9.0, "pipeline/staleness_max": 1.0}
    run = run_of(tmp_path, [row] * 6, "pipeline.max_staleness_steps=1")
    assert measured_tree(run)["weights_s"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([ROW] * 2, "too few steps"),
        ([{"seconds/step": 1.0}] * 4, "has no learner/input_tokens"),
    ],
)
def test_runs_that_cannot_be_measured_are_refused(
    rows: list[dict[str, float]], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(RunDirectoryError, match=expected):
        measured_tree(run_of(tmp_path, rows))
