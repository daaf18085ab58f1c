"""Steps on first attempts and steps on corrections of pooled errors, one after the other."""

from __future__ import annotations

from typing import Any

import pytest

from mgrpo.config import RunConfig
from mgrpo.methods.scrpo.error_pool import ErrorPool
from mgrpo.metric_sums import MetricSums
from tests.mgrpo.training.test_step_orders import WritesDown, by_layer, take_step


def pool_of(run: WritesDown) -> ErrorPool:
    pool: ErrorPool = run.source.sources[-1].pool  # type: ignore[attr-defined]
    return pool


def pooled(tree: dict[str, Any], **pool: Any) -> WritesDown:
    """Of each problem's four attempts at step one is right: three errors, six a step."""
    tree["layers"][1]["select"] = "none"
    return WritesDown(RunConfig.model_validate({**tree, "source": {"type": "error_pool", **pool}}))


def phases(run: WritesDown) -> list[str]:
    return [call for call in run.calls if call.startswith("train")]


def test_errors_are_pooled_until_the_pool_is_full_and_then_corrected(tree):
    run = pooled(tree, capacity=10)
    run.script = lambda prompt, index: f"{index}"  # p0: "0" is right, p1: "1"
    sizes, corrected = [], []
    for step in range(9):
        sums = MetricSums()
        completions = take_step(run, step, sums)
        means = sums.means()
        sizes.append(means["error_pool/size"])
        corrected.append(means["error_pool/is_correction_step"])
        assert bool(means["error_pool/is_correction_step"]) == (2 in {c.layer for c in completions})
    # Filled with 6 and 6 (10 fit), then 2 a step are corrected until fewer than 2 are left.
    assert sizes == [6, 10, 8, 6, 4, 2, 0, 6, 10]
    assert corrected == [0, 0, 1, 1, 1, 1, 1, 0, 0]
    assert phases(run) == ["train 1"] * 2 + ["train 2"] * 5 + ["train 1"] * 2


def test_corrections_of_pooled_errors_know_their_attempts(tree):
    run = pooled(tree, capacity=6)
    take_step(run, 0)
    completions = take_step(run, 1)
    assert by_layer(completions) == [2, 4, 0]
    assert run.parents_given[1] == ["s1p0#0", "s1p1#0"]
    assert {one.parent_id for one in completions if one.layer == 2} == {"s1p0#0", "s1p1#0"}
    for child in completions[2:]:
        assert child.problem_id == "p0"  # the oldest errors are of the first problem


def test_every_nth_step_corrects(tree):
    run = pooled(tree, switch="every_n_steps", every_steps=3)
    for step in range(6):
        take_step(run, step)
    assert phases(run) == ["train 1", "train 1", "train 2"] * 2


def test_errors_of_old_policies_are_never_corrected(tree):
    run = pooled(tree, switch="every_n_steps", every_steps=4, max_age=1)
    dropped = []
    for step in range(4):
        sums = MetricSums()
        take_step(run, step, sums)
        dropped.append(sums.means()["error_pool/dropped_stale"])
    # The scripted engine is always of version 0, and each step makes the policy one older.
    assert dropped == [0, 0, 12, 6]
    assert phases(run) == ["train 1"] * 4


@pytest.mark.parametrize("skip", [True, False])
def test_truncated_errors_are_pooled_only_where_they_are_corrected(tree, skip: bool):
    tree["layers"][0]["max_completion_tokens"] = 1  # every completion is cut before its end
    tree["layers"][1]["skip_truncated_parents"] = skip
    run = pooled(tree)
    take_step(run)
    assert len(pool_of(run)) == (0 if skip else 6)


@pytest.mark.parametrize("tie_break", ["random_seeded", "first", "shortest", "highest_logprob"])
def test_any_choice_of_parents_works_on_pooled_errors(tree, tie_break: str):
    tree["layers"][1]["parents"] = {"type": "best", "tie_break": tie_break}
    run = pooled(tree, capacity=6)
    take_step(run, 0)
    assert by_layer(take_step(run, 1)) == [2, 4, 0]
