"""MGRPO (errors corrected): the example of its page, by its recipe."""

import pytest

from mgrpo.config.load import load_recipe
from tests.learner.builders import attempts, completion, corrections
from tests.mgrpo.methods.shipped import (
    advantages_of,
    built,
    loss_and_gradient,
    samples,
    selected_in,
    shipped,
)

STRICT = shipped("strict_fix")
STEP = [*attempts(), *corrections()]


def test_only_the_group_that_repaired_an_error_trains():
    """Confirmations and the correction that spoils a right attempt do not."""
    batch = built(STRICT, STEP)
    assert selected_in(batch, 1) == ["q/1", "q/2", "q/3", "q/4"]
    assert selected_in(batch, 2) == ["q/2/1", "q/2/2", "q/2/3"]
    found = advantages_of(batch)
    trained = [found[name] for name in selected_in(batch, 2)]
    assert trained == pytest.approx([1.155, -0.577, -0.577], abs=1e-3)
    assert {row.completion_id for row in batch.rows if row.layer == 2} == set(selected_in(batch, 2))


def test_failed_corrections_of_a_repaired_attempt_are_pushed_down():
    """The repair to the ratio 1.1, a failure to 0.9: over the 12 corrections that were sampled."""
    rows = [row for row in built(STRICT, STEP).rows if row.layer == 2]
    loss, gradient = loss_and_gradient(STRICT, rows, [1.1, 0.9, 1.0])
    assert loss == pytest.approx(-0.1 * (1.154701 + 0.577350) / 12, rel=1e-4)
    assert gradient[0] < 0 < gradient[1]


def test_right_attempts_are_corrected_too_and_their_corrections_do_not_train():
    found = samples(STRICT, lambda prompt, index: "so 7" if index == 0 else "so 8")
    assert [one.is_correct for one in found[1]] == [True, False, False, False]
    assert len({one.parent_id for one in found[2]}) == 4 and len(found[2]) == 12


def test_where_every_attempt_is_right_layer_two_has_nothing_to_train():
    made = [*attempts([1, 1]), completion("q/1/1", 1.0), completion("q/1/2", 0.0)]
    assert built(STRICT, made).rows == []


@pytest.mark.parametrize(
    ("name", "base"), [("strict_fix", "quickstart"), ("methods/strict_fix", "methods/mgrpo")]
)
def test_the_recipe_differs_from_mgrpo_in_what_counts_as_a_success_alone(name: str, base: str):
    strict, ours = load_recipe(name), load_recipe(base)
    (solve, correct), (our_solve, our_correct) = strict.layers, ours.layers
    assert correct.success == "strict_fix"
    assert correct == our_correct.model_copy(update={"success": "strict_fix"})
    assert (solve, strict.objective) == (our_solve, ours.objective)
