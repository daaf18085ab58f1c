"""The best policy is kept, a run ends early, and policies are left meanwhile."""

from __future__ import annotations

import json

import pytest

from mgrpo.config.watched import EarlyStoppingConfig
from mgrpo.metrics.log import read_evaluations
from mgrpo.storage.checkpoints import best_checkpoint, fault_of
from mgrpo.storage.policies import BestRecord, best_record, early_end_of, stepped_policies
from mgrpo.training.watched import Measurement, improves, why_stop
from tests.mgrpo.training.light_run import PROBLEMS, LightRun
from tests.mgrpo.training.test_loop import light

HELDOUT = "heldout/layer1/accuracy"


def course(*values: float) -> list[Measurement]:
    return [Measurement(10 * place, value) for place, value in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("value", "best", "mode", "min_delta", "expected"),
    [
        (0.6, 0.5, "max", 0.0, True),
        (0.5, 0.5, "max", 0.0, False),
        (0.55, 0.5, "max", 0.1, False),
        (0.4, 0.5, "min", 0.05, True),
        (0.6, 0.5, "min", 0.0, False),
    ],
)
def test_better_is_by_mode_and_margin(value, best, mode, min_delta, expected):
    assert improves(value, best, mode, min_delta) is expected


def test_patience_counts_measurements_since_the_best():
    config = EarlyStoppingConfig(metric="m", patience=2)
    assert not why_stop([], config)
    assert not why_stop(course(0.5, 0.6, 0.6), config)
    assert not why_stop(course(0.5, 0.4, 0.6, 0.5), config)
    assert why_stop(course(0.5, 0.6, 0.6, 0.55), config) == (
        "m has not improved in 2 measurements: 0.6 after step 20, 0.55 after step 40"
    )


def watching(tree, tmp_path, scores: list[float], **changes) -> LightRun:
    """A run whose policy solves so many of the four held-out problems after each step."""
    keys = {
        "steps": 5,
        "data": {**tree["data"], "heldout": tree["data"]["train"]},
        "evaluation": {"every_steps": 1, "bootstrap_resamples": 0},
        "checkpoints": {"every_steps": 1, "keep_best": {"metric": HELDOUT}},
        **changes,
    }
    run = light(tree, tmp_path, **keys)
    run.heldout = list(PROBLEMS)

    def script(prompt: str, index: int) -> str:
        version = run.learner.policy_version
        asked = next((one for one in PROBLEMS if one.question in prompt), None)
        is_right = asked is not None and int(asked.answer) < scores[min(version, len(scores) - 1)]
        return asked.answer if is_right else "wrong"

    run.script = script
    return run


def test_the_best_policy_is_kept_with_its_measurement(tree, tmp_path):
    run = watching(tree, tmp_path, [0, 1, 3, 2, 3, 1])
    run.train()
    assert best_record(run.run_dir) == BestRecord(2, HELDOUT, "max", 0.75)
    assert early_end_of(run.run_dir) is None


def test_the_policy_at_the_end_can_be_the_best(tree, tmp_path):
    run = watching(tree, tmp_path, [0, 1, 1, 1, 1, 4])
    run.train()
    assert best_record(run.run_dir).num_steps == 5


def test_a_checkpoint_of_the_best_step_is_kept_whatever_is_newer(tree, tmp_path):
    keeping = {"every_steps": 2, "keep": 1, "keep_best": {"metric": HELDOUT, "checkpoint": True}}
    run = watching(tree, tmp_path, [0, 1, 2, 4, 3, 3], checkpoints=keeping)
    run.train()
    assert run.checkpoint_names == ["step-000003", "step-000005"]
    folder, record = best_checkpoint(run.run_dir)
    assert folder.name == "step-000003" and record == best_record(run.run_dir)
    assert fault_of(folder) == ""


def test_the_last_step_can_be_the_best_checkpoint(tree, tmp_path):
    keeping = {"every_steps": 0, "keep_best": {"metric": HELDOUT, "checkpoint": True}}
    run = watching(tree, tmp_path, [0, 1, 1, 1, 1, 4], checkpoints=keeping)
    run.train()
    assert best_checkpoint(run.run_dir)[0].name == run.checkpoint_names[-1] == "step-000005"


def test_a_run_ends_early_as_a_success_with_checkpoint_and_policy(tree, tmp_path):
    stopping = {"metric": HELDOUT, "patience": 2}
    run = watching(tree, tmp_path, [0, 1, 3, 2, 3, 4], early_stopping=stopping)
    rows = run.train()
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    end = early_end_of(run.run_dir)
    assert end.num_steps == 4 and "has not improved in 2 measurements" in end.reason
    assert run.checkpoint_names[-1] == "step-000004"
    assert (run.run_dir / "policy").is_dir()
    assert read_evaluations(run.run_dir)[-1]["label"] == "after"


def test_a_resumed_run_counts_the_measurements_before(tree, tmp_path):
    stopping = {"metric": HELDOUT, "patience": 2}
    first = watching(tree, tmp_path, [0, 3, 2, 2, 2, 2], steps=2, early_stopping=stopping)
    first.train()
    kept = first.run_dir / "checkpoints" / "step-000002"
    again = watching(tree, tmp_path, [0, 3, 2, 2, 2, 2], early_stopping=stopping)
    again.train(resume_from=kept)
    assert early_end_of(again.run_dir).num_steps == 3
    assert best_record(again.run_dir).num_steps == 1


def test_a_metric_of_the_steps_can_decide(tree, tmp_path):
    watched = {"metric": "layer1/accuracy", "mode": "min", "patience": 1}
    run = watching(
        tree,
        tmp_path,
        [4, 4, 4, 4],
        early_stopping=watched,
        checkpoints={"keep_best": None},
        evaluation={"bootstrap_resamples": 0},
    )
    assert len(run.train()) == 2


def test_a_metric_that_is_never_measured_is_said(tree, tmp_path):
    run = watching(tree, tmp_path, [0], steps=1, checkpoints={"keep_best": {"metric": "no/such"}})
    run.train()
    assert "no/such was never measured" in run.console.getvalue()


def test_policies_of_the_newest_steps_are_kept(tree, tmp_path):
    run = light(tree, tmp_path, steps=5, output={"policy_every_steps": 2, "keep_policies": 1})
    run.train()
    assert [folder.name for folder in stepped_policies(run.run_dir)] == ["step-000004"]
    (file,) = stepped_policies(run.run_dir)[0].iterdir()
    assert json.loads(file.read_text()) == 4  # the version after the fourth update
