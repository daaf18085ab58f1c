"""Real engines sample two steps ahead, and take new weights in the midst of completions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mgrpo.config.load import load_recipe
from mgrpo.data.problems import load_problems
from mgrpo.metric_sums import MetricSums
from mgrpo.metrics.log import read_metrics
from mgrpo.training.sources.stack import make_sources
from tests.end_to_end.test_resume import REPOSITORY, command, wait_for_steps

STEPS = 8


@pytest.mark.slow  # light twins do it many times: tests/mgrpo/training/test_sample_ahead.py
@pytest.mark.timeout(600)
def test_a_run_that_samples_ahead_is_stopped_and_resumed(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    layers = [{**layer, "max_completion_tokens": 96} for layer in tree["layers"]]
    settings = {
        "steps": STEPS,
        "layers": layers,
        "pipeline": {"max_staleness_steps": 2, "new_weights": "in_flight"},
        "learner": {**tree["learner"], "learning_rate": 1e-3},
        "output": {**tree["output"], "runs_dir": str(tmp_path), "rollouts_per_step": 6},
        "checkpoints": {"every_steps": 0},
    }
    recipe.write_text(yaml.safe_dump({**tree, **settings}))
    cut = subprocess.Popen(command(recipe, "cut"), cwd=REPOSITORY, text=True)
    wait_for_steps(tmp_path, "cut", cut, 3)
    os.kill(cut.pid, signal.SIGTERM)
    assert cut.wait(timeout=120) == 143
    subprocess.run(command(recipe, "cut"), cwd=REPOSITORY, check=True, timeout=300)

    rows = read_metrics(tmp_path / "cut")
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert max(row["pipeline/staleness_max"] for row in rows) == 2
    # Of tokens that the newest policy sampled, whatever had sampled those before them.
    assert all(row["mismatch/logprob_gap_max"] < 1e-3 for row in rows)
    assert all(row["weights/probe_gap_max"] < 1e-3 for row in rows)

    steps = [
        [json.loads(line) for line in (tmp_path / "cut/rollouts" / f"step-{n:06d}.jsonl").open()]
        for n in range(STEPS)
    ]
    assert [sorted({one["problem_id"] for one in done}) for done in steps] == drawn(recipe)
    spans = [one["version_spans"] for done in steps for one in done]
    assert any(len(one) > 1 for one in spans)
    for step, done in enumerate(steps):
        versions = [version for one in done for _, version in one["version_spans"]]
        assert step - 2 <= min(versions) and max(versions) <= step


def drawn(recipe: Path) -> list[list[str]]:
    """The problems of each step of a run that is not interrupted."""
    config = load_recipe(str(recipe), [])
    problems = load_problems(config.data.train).problems
    sources = make_sources(config.method_view, problems)
    workers: Any = None  # fresh problems need none
    works = [sources.next(step, workers, MetricSums()) for step in range(STEPS)]
    return [sorted(one.problem_id for one in work.problems) for work in works if work is not None]
