"""Alternating solve and refine steps: who trains in which step, by the recipe."""

import pytest

from mgrpo.config.load import load_recipe
from tests.learner.builders import attempts, completion, long
from tests.mgrpo.methods.shipped import (
    advantages_of,
    built,
    loss_and_gradient,
    prompt_of,
    samples,
    selected_in,
    shipped,
)
from tests.mgrpo.training.test_step_orders import WritesDown, take_step

TWICE = shipped("think_twice")


def test_even_steps_train_attempts_and_odd_steps_refinements():
    run = WritesDown(load_recipe("methods/think_twice"))
    steps = [take_step(run, step) for step in range(3)]
    assert run.calls == [
        *["sample 1", "train 1", "broadcast"],
        *["sample 12", "train 2", "broadcast"],
        *["sample 1", "train 1", "broadcast"],
    ]
    assert [len(one) for one in steps] == [16 * 8, 16 * (8 + 8), 16 * 8]


def test_one_attempt_of_each_problem_is_refined_right_or_wrong():
    chosen = set()
    for seed in range(40):
        found = samples(TWICE, lambda prompt, n: f"try {n}: {7 if n % 2 else 8}", seed=seed)
        assert (len(found[1]), len(found[2])) == (8, 8)
        (parent,) = [one for one in found[1] if one.completion_id == found[2][0].parent_id]
        assert {one.parent_id for one in found[2]} == {parent.completion_id}
        assert parent.text in prompt_of(found[2][0])
        chosen.add(parent.is_correct)
    assert chosen == {True, False}


def test_refinements_of_the_page_are_centred_and_not_scaled():
    made = [completion(f"q/3/{n}", reward) for n, reward in enumerate([1, 0, 0, 0], start=1)]
    batch = built(TWICE, made, context=attempts([1, 0, 0, 1]))
    assert list(advantages_of(batch).values()) == [0.75, -0.25, -0.25, -0.25]
    assert {row.layer for row in batch.rows} == {2} and len(batch.rows) == 4


def test_attempts_are_centred_and_not_scaled():
    batch = built(TWICE, attempts([1, 0, 0, 1]))
    assert list(advantages_of(batch).values()) == [0.5, -0.5, -0.5, 0.5]


def test_refinements_of_which_none_is_right_train_by_their_rewards():
    made = [completion("q/1/1", 0.5), completion("q/1/2", 0.0)]
    batch = built(TWICE, made, context=attempts([0]))
    assert selected_in(batch, 2) == ["q/1/1", "q/1/2"]
    assert list(advantages_of(batch).values()) == [0.25, -0.25]


@pytest.mark.parametrize("parent", ["q", "q/1"])
def test_the_loss_of_either_step_is_a_mean_over_its_tokens(parent: str):
    """A = 0.5 on one token at the ratio 1.1, -0.5 on three."""
    made = [long(f"{parent}/1", 1.0, 1), long(f"{parent}/2", 0.0, 3)]
    loss, gradient = loss_and_gradient(TWICE, built(TWICE, made).rows, [1.1, 1.0, 1.0, 1.0])
    assert loss == pytest.approx(-(0.55 - 1.5) / 4)
    assert gradient == pytest.approx([-0.55 / 4, 0.5 / 4, 0.5 / 4, 0.5 / 4])
