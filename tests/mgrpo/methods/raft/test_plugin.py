"""RAFT and Reinforce-Rej: who is kept, and with which advantage."""

import pytest
import torch
from torch.testing import assert_close

from mgrpo.config.load import load_recipe
from tests.learner.builders import attempts, plugin
from tests.learner.estimator_cases import advantages, batch_of, groups
from tests.learner.exact import exact_loss, floats

CUT = [[0, 3], [2], [1]]
RAW = {"advantage": "none", "aggregation": "token_mean"}


def raft(keep, **settings):
    return plugin("raft", keep=keep, **{"reward_map": "plus_minus_one", **settings})


def selected(batch):
    return [one.selected for one in batch.selections]


def test_raft_trains_right_answers_with_advantage_1():
    batch = batch_of(attempts([1, 0, 0, 1]), raft("positive"), **RAW)
    assert [row.advantages[0] for row in batch.all_rows] == [1, 0, 0, 1]
    assert selected(batch) == [True, False, False, True]
    assert batch.selections[1].reason == "its reward is not positive"
    assert advantages(attempts([1, 1, 1, 1]), raft("positive"), **RAW) == [1, 1, 1, 1]


def test_reinforce_rej_leaves_out_groups_that_say_nothing():
    batch = batch_of(groups([1, 0, 0, 1], [1, 1]), raft("mixed_groups"), **RAW)
    assert [row.advantages[0] for row in batch.all_rows[:4]] == [1, -1, -1, 1]
    assert selected(batch) == [True] * 4 + [False] * 2
    as_is = raft("mixed_groups", reward_map="zero_one")
    assert advantages(attempts([1, 0, 0, 1]), as_is, **RAW) == [1, 0, 0, 1]


def test_shaping_changes_rafts_weights_and_not_who_is_kept():
    """A penalty takes 0.5 off a right answer, 2r - 1 is then 0; it is kept all the same."""
    made = groups([1, 0], lengths=[6, 1])
    shaper = plugin("overlong_penalty", max_tokens=8, buffer_tokens=4)
    batch = batch_of(made, shaper, raft("positive", reward_map="zero_one"), **RAW)
    assert batch.all_rows[0].advantages[0] == pytest.approx(0.5)
    assert selected(batch) == [True, False]


@pytest.mark.parametrize(("keeps", "weight"), [(True, 1 / 5), (False, 1 / 2)])
def test_what_raft_leaves_out_may_count_in_the_denominator(keeps, weight):
    made = groups([1, 0], lengths=[2, 3])
    batch = batch_of(made, raft("positive", keep_in_denominator=keeps), **RAW)
    assert batch.all_rows[0].token_weights == pytest.approx([weight] * 2)
    assert batch.all_rows[1].token_weights.tolist() == [0.0] * 3


def test_raft_maximises_the_mean_log_probability_of_right_answers():
    parts = [raft("positive"), plugin("reinforce")]
    rows = batch_of(groups([1, 0], [1, 1], lengths=[2, 3, 1, 2]), *parts, **RAW).all_rows
    logprobs = (-floats(*range(1, 9)) / 4).requires_grad_()
    loss = exact_loss(rows, logprobs, logprobs.detach() - 1, plugins=parts, cuts=CUT)
    right = torch.tensor([True, True, False, False, False, True, True, True])
    assert_close(loss, -logprobs[right].sum() / 8, rtol=1e-12, atol=1e-15)


def test_the_recipe_has_the_authors_kl_and_entropy_terms():
    config = load_recipe("methods/raft")
    assert (config.objective.kl.weight, config.objective.kl.estimator) == (0.001, "k3")
    (bonus,) = [entry for entry in config.plugins if entry.use == "entropy_bonus"]
    assert bonus.settings == {"coefficient": 0.001}
