"""MGRPO (successes only): the example of its page, by its recipe."""

import pytest

from mgrpo.config.load import load_recipe
from tests.learner.builders import attempts, corrections
from tests.mgrpo.methods.shipped import (
    advantages_of,
    built,
    children_of,
    loss_and_gradient,
    samples,
    selected_in,
    shipped,
)
from tests.mgrpo.training.test_step_orders import WritesDown, take_step

SUCCESSES = shipped("success_only")
RIGHT = ["q/1/1", "q/1/2", "q/2/1", "q/4/1", "q/4/2", "q/4/3"]


def test_right_corrections_train_with_the_baseline_of_their_whole_group():
    batch = built(SUCCESSES, corrections(), context=attempts())
    assert selected_in(batch, 2) == RIGHT
    found = advantages_of(batch)
    trained = [found[name] for name in RIGHT]
    assert trained == pytest.approx([0.577, 0.577, 1.155, 0, 0, 0], abs=1e-3)
    # The KL term gives those of advantage 0 a gradient too.
    assert [row.completion_id for row in batch.rows] == RIGHT


def test_the_loss_is_divided_by_what_trains_and_has_a_kl_term():
    """J of 0.577 + 0.577 + 1.155 at ratio 1, and k3 at d = 0.1, over six."""
    rows = built(SUCCESSES, corrections(), context=attempts()).rows
    loss, gradient = loss_and_gradient(SUCCESSES, rows, [1.0] * 6, ref_gap=-0.1)
    assert loss == pytest.approx(-2.309401 / 6 + 0.001 * 0.00517092, rel=1e-5)
    assert all(value != 0 for value in gradient)


def test_filtering_before_the_baseline_would_leave_no_signal():
    before = shipped("success_only", "layers.correct.select=success_only_pre_norm")
    batch = built(before, corrections(), context=attempts())
    assert selected_in(batch, 2) == RIGHT
    assert {advantages_of(batch)[name] for name in RIGHT} == {0.0}


def test_attempts_train_as_in_grpo_with_the_same_kl_term():
    batch = built(SUCCESSES, attempts())
    assert list(advantages_of(batch).values()) == pytest.approx(
        [0.866025, -0.866025, -0.866025, 0.866025], rel=1e-5
    )
    loss, _ = loss_and_gradient(SUCCESSES, batch.rows, [1.0] * 4, ref_gap=-0.1)
    assert loss == pytest.approx(0.001 * 0.00517092, rel=1e-4)


def test_layer_two_is_sampled_from_what_the_update_of_layer_one_left():
    run = WritesDown(load_recipe("methods/success_only"))
    take_step(run)
    layers = [["sample 1", "train 1", "broadcast"], ["sample 2", "train 2", "broadcast"]]
    assert run.calls == [*layers[0], *layers[1]]


def test_each_correction_draws_a_phrase_of_its_own_and_cut_attempts_are_corrected():
    found = samples(SUCCESSES, lambda prompt, index: "8" * (200 if index == 3 else 1))
    assert [one.is_truncated for one in found[1]] == [False, False, False, True]
    families = [children_of(attempt, found[2]) for attempt in found[1]]
    assert [len(family) for family in families] == [3] * 4
    assert any(len({one.guidance_id for one in family}) > 1 for family in families)


def test_the_recipe_with_the_full_budget_differs_from_the_defaults():
    config = load_recipe("success_only")
    correct = config.layers[1]
    assert (correct.parents.type, correct.group_size, correct.group_by) == ("all", 4, "parent")
    assert (correct.select, correct.denominator) == ("success_only_post_norm", "retained")
    assert (correct.success, correct.advantage.type) == ("final_correct", "group_z")
    assert (correct.layout.type, correct.layout.quote) == ("review_chat", "full")
    assert correct.guidance.draw.type == "per_correction"
    assert not correct.skip_truncated_parents
    assert config.objective.update_order.type == "sequential"
    assert {layer.aggregation.type for layer in config.layers} == {"seq_mean"}
    assert (config.evaluation.guidance, config.evaluation.decoding) == ("first", "greedy")
