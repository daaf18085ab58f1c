import dataclasses

import pytest

from learner.selection import TOO_FEW_TO_COMPARE, select_layer
from mgrpo.errors import LearnerError
from tests.learner.builders import (
    attempts,
    completion,
    corrections,
    layer,
    solve_layer,
    with_status,
)

PARENTS = {one.completion_id: one for one in attempts()}


def reasons(children, parents=PARENTS, **settings):
    candidates = select_layer(children, parents, layer(**settings))
    return {one.completion.completion_id: one.reason for one in candidates}


def kept(children, **settings):
    return [name for name, reason in reasons(children, **settings).items() if not reason]


def test_every_usable_first_attempt_trains():
    candidates = select_layer(attempts(), {}, solve_layer())
    assert all(one.is_selected for one in candidates)
    assert [one.is_success for one in candidates] == [True, False, False, True]


def test_groups_with_success_drops_only_the_parent_that_nobody_corrected():
    found = reasons(corrections(), select="groups_with_success")
    dropped = {name for name, reason in found.items() if reason}
    assert dropped == {"q/3/1", "q/3/2", "q/3/3"}
    assert found["q/3/1"] == "no correction of this parent succeeded"


def test_groups_with_success_follows_the_way_completions_are_grouped():
    assert len(kept(corrections(), select="groups_with_success", group_by="query")) == 12
    failed = [[0, 0, 0]] * 4
    assert set(reasons(corrections(failed), group_by="query").values()) == {
        "no correction of this problem succeeded"
    }


@pytest.mark.parametrize("select", ["success_only_post_norm", "success_only_pre_norm"])
def test_success_only_keeps_the_six_right_answers(select):
    names = ["q/1/1", "q/1/2", "q/2/1", "q/4/1", "q/4/2", "q/4/3"]
    assert kept(corrections(), select=select) == names
    assert reasons(corrections(), select=select)["q/1/3"] == "its answer is not right"


def test_a_strict_fix_needs_a_wrong_parent():
    settings = {"select": "success_only_post_norm", "success": "strict_fix"}
    assert kept(corrections(), **settings) == ["q/2/1"]
    reason = reasons(corrections(), **settings)["q/1/1"]
    assert reason == "its parent was right already, so it fixed nothing"


def test_improves_compares_rewards_rather_than_answers():
    children = [completion("q/2/1", 0.5), completion("q/2/2", 0.0)]
    settings = {"select": "success_only_post_norm", "success": "improves"}
    assert kept(children, **settings) == ["q/2/1"]
    assert reasons(children, **settings)["q/2/2"] == "its reward is not above its parent's"


@pytest.mark.parametrize("status", ["timeout", "error"])
def test_a_failed_check_leaves_the_completion_out(status):
    children = corrections()
    children[0] = with_status(children[0], status)
    found = reasons(children, select="none")
    assert found["q/1/1"] == f"the check failed ({status})"
    assert [name for name, reason in found.items() if reason] == ["q/1/1"]


def test_an_unparsable_answer_is_a_legitimate_zero():
    children = corrections()
    children[2] = with_status(children[2], "unparsable")
    assert reasons(children, select="none")["q/1/3"] == ""


def test_a_completion_left_alone_has_nothing_to_compare_with():
    children = [completion("q/1/1", 1.0), with_status(completion("q/1/2", 0.0), "timeout")]
    assert reasons(children, select="none")["q/1/1"] == TOO_FEW_TO_COMPARE
    assert reasons(children, select="none", advantage="const_positive")["q/1/1"] == ""


def test_a_parent_whose_check_failed_cannot_be_improved_on():
    parents = {**PARENTS, "q/2": with_status(PARENTS["q/2"], "error")}
    settings = {"select": "none", "advantage": "improvement"}
    assert reasons(corrections(), parents, **settings)["q/2/1"] == (
        "the check of its parent failed (error)"
    )
    # Where parents are not compared with, their check does not matter.
    assert reasons(corrections(), parents, select="none")["q/2/1"] == ""


def test_a_layer_without_loss_weight_says_so():
    assert reasons(corrections(), loss_weight=0.0)["q/1/1"] == "layer 'correct' has loss_weight 0"


def test_a_completion_without_tokens_cannot_train():
    empty = completion("q/1/1", 1.0, token_ids=[], rollout_logprobs=[])
    assert reasons([empty, completion("q/1/2", 0.0)])["q/1/1"] == "it has no tokens"


def test_an_unscored_completion_is_an_error_that_names_it():
    with pytest.raises(LearnerError, match="q/1/1 reached the learner without a reward"):
        reasons([dataclasses.replace(completion("q/1/1", 0.0), reward=None)])


def test_a_missing_parent_is_an_error_only_where_it_is_needed():
    assert reasons(corrections(), {})["q/1/1"] == ""
    with pytest.raises(LearnerError, match="scored parent q/1 of completion q/1/1"):
        reasons(corrections(), {}, success="strict_fix")
