from __future__ import annotations

from pathlib import Path

import pytest

from mgrpo.check.canary import AT_REST, accuracy_lines, digests, gap_line, weight_line
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
    assert gap_line(rows, bound).status == status


def test_other_accuracies_with_the_same_weights_are_a_warning():
    same, other = {"acc": [0.5, 0.6]}, {"acc": [0.5, 0.625]}
    assert [line.status for line in accuracy_lines([same, same])] == ["ok"]
    (line,) = accuracy_lines([same, other])
    assert line.status == "warn" and "Acc@t2 60.0% and 62.5%" in line.detail
    assert list(accuracy_lines([same])) == []
