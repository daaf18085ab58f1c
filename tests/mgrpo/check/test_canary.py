from __future__ import annotations

from pathlib import Path

import pytest

from mgrpo.check.canary import (
    AT_REST,
    accuracy_lines,
    canary_lines,
    digests,
    gap_line,
    gaps_of,
    weight_line,
)
from mgrpo.config.load import load_recipe


def test_every_recipe_can_be_at_rest():
    for recipe in ("quickstart", "grpo", "igrpo", "dapo"):
        config = load_recipe(recipe, AT_REST)
        assert (config.learner.learning_rate, config.steps, config.phases) == (0.0, 2, [])


def test_a_weight_that_changes_is_a_failure(tmp_path: Path):
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert weight_line(a, b).status == "ok"
    assert weight_line(a, c).status == "fail" and "model.safetensors" in weight_line(a, c).detail
    assert weight_line({}, {}).status == "fail"


@pytest.mark.parametrize(
    ("gaps", "bound", "status"),
    [
        ([1e-6, 2e-6], 0.05, "ok"),
        ([1e-6, 0.3], 0.05, "fail"),
        ([0.3], None, "ok"),
        ([], 1.0, "fail"),
    ],
)
def test_a_gap_above_the_alarms_threshold_is_a_failure(gaps, bound, status):
    rows = [{"step": step, "mismatch/logprob_gap_mean": gap} for step, gap in enumerate(gaps)]
    assert gap_line(gaps_of([*rows, {"step": len(rows)}]), bound).status == status


@pytest.mark.parametrize(
    ("after", "is_exact", "status"),
    [
        ([0.5, 0.6], True, "ok"),
        ([0.5, 0.625], True, "fail"),
        ([0.5, 0.6], False, "ok"),
        ([0.5, 0.625], False, "warn"),
        ([0.5, 0.9], False, "fail"),  # of 64 problems: 0.3 is 3.6 standard errors
    ],
)
def test_another_accuracy_with_the_same_weights_is_rounding_or_a_failure(after, is_exact, status):
    rows = [{"acc": acc, "num_problems": 64} for acc in ([0.5, 0.6], [0.1, 0.1], after)]
    (line,) = accuracy_lines(rows, is_exact=is_exact)
    assert line.status == status
    assert f"Acc@t2 60.0% and {after[1]:.1%}" in line.detail


def test_a_run_that_evaluates_nothing_has_no_accuracies_to_compare():
    assert list(accuracy_lines([{"acc": [0.5], "num_problems": 64}], is_exact=True)) == []


@pytest.mark.processes
@pytest.mark.timeout(900)
def test_real_engines_and_a_real_learner_change_nothing_at_rest():
    small = ["prompts_per_step=2", "layers.0.group_size=2", "layers.1.group_size=2"]
    short = ["layers.0.max_completion_tokens=16", "layers.1.max_completion_tokens=16"]
    own = ["engines.num_shared_engines=1", "data.heldout.size=16", "evaluation.guidance=first"]
    lines = {line.name: line for line in canary_lines("quickstart", [*small, *short, *own])}
    assert lines.keys() == {"canary weights", "canary log-probs", "canary accuracy"}
    assert {line.status for line in lines.values()} == {"ok"}, lines
    assert "Acc@t2" in lines["canary accuracy"].detail
