"""SCoRe's bonus: what a correction is paid for what it changed."""

import pytest

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from tests.learner.builders import completion, layer, plugin, solve_layer, with_status

CHAIN = [
    solve_layer(advantage="raw_reward"),
    layer(advantage="raw_reward", select="none"),
]


def returns(completions, *layers, context=(), **settings):
    """By completion_id, the return that REINFORCE multiplies the log-probabilities with."""
    batch = build_batch(
        completions,
        CHAIN,
        ObjectiveConfig(),
        context=context,
        plugins=[plugin("correction_bonus", *layers, **settings)],
    )
    return {one.completion_id: one.advantage for one in batch.selections}


def test_a_correction_of_the_fourth_part_is_paid_by_its_gain():
    found = returns([completion("q/1", 0.25), completion("q/1/1", 0.75)], alpha=4.0)
    assert found == {"q/1": 0.25, "q/1/1": 0.75 + 4 * 0.5}


def test_with_both_an_attempt_gets_the_mean_bonus_of_its_corrections():
    family = [completion("q/1", 0.0), completion("q/1/1", 1.0), completion("q/1/2", 0.0)]
    assert returns(family, bonus_to="both") == {"q/1": 5.0, "q/1/1": 11.0, "q/1/2": 0.0}
    assert returns(family, bonus_to="turn2")["q/1"] == 0.0


def test_a_parent_that_does_not_train_now_is_compared_with_all_the_same():
    child = completion("q/1/1", 1.0)
    assert returns([child], context=[completion("q/1", 0.0)], bonus_to="both") == {"q/1/1": 11.0}


@pytest.mark.parametrize("status", ["timeout", "error"])
def test_a_failed_check_on_either_side_pays_nothing(status):
    parent, child = completion("q/1", 0.0), completion("q/1/1", 1.0)
    assert returns([with_status(parent, status), child])["q/1/1"] == 1.0
    assert returns([parent, with_status(child, status)])["q/1/1"] == 0.0


def test_a_correction_whose_parent_is_unknown_keeps_its_reward():
    assert returns([completion("q/1/1", 1.0)]) == {"q/1/1": 1.0}


def test_only_the_plugins_own_layers_are_paid():
    family = [completion("q/1", 0.0), completion("q/1/1", 1.0)]
    assert returns(family, 2, bonus_to="both") == {"q/1": 0.0, "q/1/1": 11.0}
    assert returns(family, 1, bonus_to="both") == {"q/1": 10.0, "q/1/1": 1.0}


def test_the_answer_that_was_right_stays_right():
    """Only the value is shaped: selection by success still follows the checks."""
    chain = [CHAIN[0], layer(advantage="raw_reward", select="success_only_post_norm")]
    harm = [completion("q/1", 1.0), completion("q/1/1", 0.0), completion("q/1/2", 1.0)]
    batch = build_batch(harm, chain, ObjectiveConfig(), plugins=[plugin("correction_bonus")])
    selected = [one.completion_id for one in batch.selections if one.selected]
    assert selected == ["q/1", "q/1/2"]
