"""RLOO, REINFORCE++, GPG, RAFT and Dr. GRPO: advantages through the step's batch."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from mgrpo.config.load import load_recipe
from tests.learner.builders import attempts, long, plugin, solve_layer, with_status
from tests.learner.exact import UNCORRECTED, exact_loss, floats

SETTINGS = ObjectiveConfig(**UNCORRECTED)
CUT = [[0, 3], [2], [1]]


def groups(*rewards, lengths=None):
    """One completion for each reward of each group, of one token unless told otherwise."""
    flat = [
        (name, number, reward)
        for name, group in zip("qrs", rewards, strict=False)
        for number, reward in enumerate(group, start=1)
    ]
    sizes = lengths or [1] * len(flat)
    return [
        long(f"{name}/{number}", reward, size)
        for (name, number, reward), size in zip(flat, sizes, strict=True)
    ]


def batch_of(completions, *plugins, signals=None, **layer):
    return build_batch(
        completions, [solve_layer(**layer)], SETTINGS, plugins=plugins, signals=signals
    )


def advantages(completions, *plugins, **changes):
    """One for each completion, the same on all of its tokens."""
    rows = batch_of(completions, *plugins, **changes).all_rows
    assert all(len(set(row.advantages)) == 1 for row in rows)
    return [row.advantages[0] for row in rows]


# --- RLOO ---


def test_rloo_compares_with_the_others():
    found = advantages(attempts([1, 0, 0, 1]), plugin("rloo"))
    assert found == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3], abs=1e-9)


def test_rloo_keeps_groups_apart_and_leaves_failed_checks_out():
    made = groups([1, 0, 1], [3, 1])
    made[2] = with_status(made[2], "timeout")
    assert advantages(made, plugin("rloo")) == pytest.approx([1, -1, 0, 2, -2])


def test_rloo_gives_nothing_to_a_completion_without_others_and_to_equal_ones():
    assert advantages(groups([1.0]), plugin("rloo")) == [0.0]
    assert advantages(groups([0.1, 0.1, 0.1]), plugin("rloo")) == [0.0, 0.0, 0.0]


def test_rloo_normalised_has_mean_0_and_deviation_1():
    found = floats(
        *advantages(groups([1, 0, 0], [1, 1, 0]), plugin("rloo", normalise=True, epsilon=0.0))
    )
    assert float(found.mean()) == pytest.approx(0, abs=1e-12)
    assert float(found.std()) == pytest.approx(1)


# --- REINFORCE++ ---


def test_reinforce_plus_plus_whitens_over_the_whole_batch():
    found = advantages(groups([1, 0], [1, 1]), plugin("reinforce_plus_plus"))
    assert found == pytest.approx([0.5, -1.5, 0.5, 0.5], abs=1e-6)


def test_token_counts_weigh_in_the_whitening():
    """Tokens 1, 1, 0: mean 2/3, unbiased deviation sqrt(1/3)."""
    found = advantages(groups([1, 0], lengths=[2, 1]), plugin("reinforce_plus_plus"))
    assert found == pytest.approx([math.sqrt(3) / 3, -2 * math.sqrt(3) / 3], abs=1e-6)


def test_with_a_baseline_the_groups_mean_is_taken_off_first():
    part = plugin("reinforce_plus_plus", baseline="group_mean", whiten_over="completions")
    found = advantages(groups([1, 0], [1, 1]), part)
    assert found == pytest.approx([1.224745, -1.224745, 0, 0], abs=1e-6)
    longer = advantages(groups([1, 0], [1, 1], lengths=[5, 2, 3, 1]), part)
    assert longer == pytest.approx(found)


def test_each_token_pays_for_its_own_and_all_later_distance_to_the_reference():
    made = groups([1, 0], lengths=[3, 1])
    signals = {
        "policy_logprobs": floats(-0.1, -0.2, -0.3, -0.5),
        "ref_logprobs": floats(-0.3, -0.3, -0.3, -0.9),
    }
    part = plugin("reinforce_plus_plus", kl_weight=0.5)
    assert part.wanted_signals() == {"policy_logprobs", "ref_logprobs"}
    assert plugin("reinforce_plus_plus").wanted_signals() == frozenset()
    batch = batch_of(made, part, signals=signals)
    # Gaps 0.2, 0.1, 0 and 0.4.
    returns = floats(1 - 0.15, 1 - 0.05, 1.0, 0 - 0.2)
    expected = (returns - returns.mean()) / returns.std()
    assert [value for row in batch.all_rows for value in row.advantages] == pytest.approx(
        expected.tolist(), abs=1e-6
    )


def test_equal_rewards_whiten_to_nothing():
    assert advantages(groups([1, 1], [1, 1]), plugin("reinforce_plus_plus")) == [0.0] * 4


def test_a_penalty_at_each_token_cannot_be_whitened_by_completion():
    with pytest.raises(ValidationError, match="no one advantage of a completion"):
        plugin("reinforce_plus_plus", kl_weight=0.1, whiten_over="completions")


# --- GPG ---


def test_gpg_scales_up_for_the_groups_that_say_nothing():
    made = groups([1, 0], [1, 1])
    batch = batch_of(made, plugin("gpg"))
    assert batch.metrics["gpg/alpha"] == (2.0, 1.0)
    assert advantages(made, plugin("gpg")) == pytest.approx([1, -1, 0, 0])
    assert advantages(made, plugin("gpg", scale=False, divisor=2.0))[:2] == [0.25, -0.25]


def test_gpg_of_equal_rewards_alone_is_nothing():
    assert advantages(groups([0.1, 0.1, 0.1]), plugin("gpg")) == [0.0] * 3


# --- RAFT ---

RAW = {"advantage": "none", "aggregation": "token_mean"}


def raft(keep, **settings):
    return plugin("raft", keep=keep, **{"reward_map": "plus_minus_one", **settings})


def selected(batch):
    return [one.selected for one in batch.verdicts]


def test_raft_trains_right_answers_with_advantage_1():
    batch = batch_of(attempts([1, 0, 0, 1]), raft("positive"), **RAW)
    assert [row.advantages[0] for row in batch.all_rows] == [1, 0, 0, 1]
    assert selected(batch) == [True, False, False, True]
    assert batch.verdicts[1].reason == "its reward is not positive"
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


# --- Dr. GRPO ---


def test_dr_grpo_is_configuration_alone():
    config = load_recipe("methods/dr_grpo", ["objective.importance=none"])
    assert config.plugins == []
    layer = config.layers[0].model_copy(update={"max_completion_tokens": 4})
    batch = build_batch(attempts([1, 0, 0, 1]), [layer], config.objective)
    assert [row.advantages[0] for row in batch.rows] == [0.5, -0.5, -0.5, 0.5]
    two = build_batch(groups([1, 0], lengths=[2, 4]), [layer], config.objective).rows
    old = floats(*([-1.0] * 6))
    loss = exact_loss(two, old.clone(), old, objective=config.objective)
    assert float(loss) == pytest.approx(0.125)  # J is -0.125


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [("seq_mean", 0.0), ("token_mean", -1 / 6), ("fixed_length", -0.125)],
)
def test_two_rows_under_each_aggregation(aggregation, expected):
    """A = 0.5 with 2 tokens, A = -0.5 with 4, on policy."""
    advantage = {"scale_by_std": False}
    solve = solve_layer(aggregation=aggregation, max_completion_tokens=4, advantage=advantage)
    centred = ObjectiveConfig(**UNCORRECTED)
    rows = build_batch(groups([1, 0], lengths=[2, 4]), [solve], centred).rows
    old = floats(*([-1.0] * 6))
    for cuts in ([[0, 1]], [[0], [1]]):
        loss = exact_loss(rows, old.clone(), old, objective=centred, cuts=cuts)
        assert -float(loss) == pytest.approx(expected, abs=1e-12)


# --- what all estimators share ---


@pytest.mark.parametrize("part", ["rloo", "reinforce_plus_plus", "gpg"], ids=lambda use: use)
def test_completions_whose_check_failed_have_no_advantage_and_move_nobodys(part):
    made = groups([1, 0, 0], [1, 1])
    plain = advantages(made, plugin(part))
    failed = [*made, with_status(long("q/9", 0.0, 1), "error")]
    assert advantages(failed, plugin(part)) == pytest.approx([*plain, 0.0])
