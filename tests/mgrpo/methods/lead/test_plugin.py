"""GRPO-LEAD through the learner's own seam."""

import dataclasses
import math
from statistics import fmean, stdev

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.batch import build_batch
from learner.plugin import LearnerPlugin
from mgrpo.config import ObjectiveConfig
from mgrpo.errors import ConfigError
from mgrpo.methods.lead.plugin import difficulty_weights, length_rewards
from mgrpo.plugin import load_plugins
from mgrpo.types import Reward
from tests.learner.builders import long, plugin, run_config, solve_layer, with_status

OBJECTIVE = ObjectiveConfig()
Z_SCORE = {"epsilon": 1e-6}


def built(completions, **settings):
    return build_batch(
        completions,
        [solve_layer(advantage=Z_SCORE)],
        OBJECTIVE,
        plugins=[plugin("lead", **settings)],
    )


def group(lengths, rewards):
    return [
        long(f"q/{n}", reward, length)
        for n, (length, reward) in enumerate(zip(lengths, rewards, strict=True), start=1)
    ]


def worked_group():
    return group([100, 150, 200, 120], [1.0, 1.0, 1.0, 0.0])


def worked_group_of(name):
    return [
        long(f"{name}/{n}", one.reward.value, len(one.token_ids))
        for n, one in enumerate(worked_group(), start=1)
    ]


def advantages(batch):
    return [row.advantages[0] for row in batch.all_rows]


def test_the_worked_group_gets_its_rewards():
    assert built(worked_group()).shaped_rewards == pytest.approx(
        [1.051271, 1.0, 0.951229, -1.0], abs=1e-6
    )


def test_the_worked_group_gets_its_advantages_before_and_after_weighting():
    even = {"weight_floor": 1.0, "weight_ceiling": 1.0}
    assert advantages(built(worked_group(), **even)) == pytest.approx(
        [0.549958, 0.498751, 0.450041, -1.498750], abs=1e-6
    )
    assert advantages(built(worked_group())) == pytest.approx(
        [0.522460, 0.473813, 0.427539, -2.237091], abs=1e-6
    )


def test_the_worked_weights():
    found = difficulty_weights(
        torch.tensor([0.75, 0.25]), floor=0.4, ceiling=1.5, middle=0.75, steepness=10
    )
    assert found.tolist() == pytest.approx([0.95, 1.492638], abs=1e-6)


def test_without_length_and_weights_it_is_grpo():
    """-1 instead of 0 for a wrong answer does not matter to a z-score."""
    off = {"length_strength": 0, "weight_floor": 1.0, "weight_ceiling": 1.0}
    plain = build_batch(worked_group(), [solve_layer(advantage=Z_SCORE)], OBJECTIVE)
    found = build_batch(
        worked_group(),
        [solve_layer(advantage=Z_SCORE)],
        OBJECTIVE,
        plugins=[plugin("lead", **off)],
    )
    assert advantages(found) == pytest.approx(advantages(plain))


def test_a_lone_right_answer_is_paid_whatever_its_length():
    assert built(group([9, 2, 3], [1.0, 0.0, 0.0])).shaped_rewards == [1.0, -1.0, -1.0]


def test_right_answers_of_one_length_are_paid_alike():
    found = length_rewards(torch.tensor([5.0, 5.0]), torch.tensor([True, True]), strength=0.05)
    assert found.tolist() == [1.0, 1.0]


def test_a_wrong_answer_of_any_length_leaves_the_rewards_finite():
    lengths, is_right = torch.tensor([10000.0, 10000.0, 1.0]), torch.tensor([True, True, False])
    assert length_rewards(lengths, is_right, strength=0.05).tolist() == [1.0, 1.0, 1.0]


def test_the_gate_looks_at_the_three_shortest():
    """(100 + 120 + 150) / 3 = 123.3"""
    assert built(worked_group(), min_len_gate=123).shaped_rewards[0] == pytest.approx(1.051271)
    assert built(worked_group(), min_len_gate=124).shaped_rewards == [1.0, 1.0, 1.0, -1.0]


def test_what_has_no_answer_can_cost_nothing():
    unread = dataclasses.replace(long("q/5", 0.0, 7), reward=Reward(value=0.0, status="unparsable"))
    assert built([*worked_group(), unread]).shaped_rewards[4] == -1.0
    assert built([*worked_group(), unread], unanswered_reward=0.0).shaped_rewards[3:] == [-1, 0]


def test_what_another_plugin_added_stays_added():
    penalty = plugin("lead")
    penalty.filter_rows = lambda batch: None
    penalty.shape_rewards = lambda batch, rewards: rewards - 0.25
    penalty.transform_advantages = lambda batch, advantages: advantages
    parts = [penalty, plugin("lead")]
    batch = build_batch(worked_group(), [solve_layer(advantage=Z_SCORE)], OBJECTIVE, plugins=parts)
    expected = [value - 0.25 for value in built(worked_group()).shaped_rewards]
    assert batch.shaped_rewards == pytest.approx(expected)


def test_a_failed_check_keeps_its_reward():
    five = [*worked_group(), with_status(long("q/5", 0.0, 7), "timeout")]
    assert built(five).shaped_rewards[4] == 0.0


def test_two_right_answers_of_100_and_200_tokens_are_compared_by_length():
    """z = -+0.707107, rewards 1.035987 and 0.965263, advantages +-0.707107; w(1) = 0.483434 for
    the gain, w(0) = 1.499392 for the loss."""
    batch = built(group([100, 200], [1.0, 1.0]))
    assert batch.shaped_rewards == pytest.approx([1.035987, 0.965263], abs=1e-6)
    assert advantages(batch) == pytest.approx([0.341834, -1.060216], abs=1e-4)
    assert all(one.selected for one in batch.selections)


@given(st.lists(st.integers(1, 400), min_size=2, max_size=8, unique=True))
@settings(max_examples=40, deadline=None)
def test_of_right_answers_alone_the_shorter_one_always_gains_more(lengths):
    """Written out: z, exp(-0.05 z), the group's z-score, w(1) on gains and w(0) on losses."""
    z = standardised([float(one) for one in lengths])
    expected = [
        a * (0.483434 if a > 0 else 1.499392)
        for a in standardised([math.exp(-0.05 * one) for one in z])
    ]
    found = advantages(built(group(lengths, [1.0] * len(lengths))))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)
    by_length = [a for _, a in sorted(zip(lengths, found, strict=True))]
    assert by_length == sorted(by_length, reverse=True)


def standardised(values):
    return [(value - fmean(values)) / stdev(values) for value in values]


def test_an_all_right_group_is_left_out_where_all_earn_the_same():
    """Then length says nothing: it counts for nothing, it is behind the gate, or all are alike."""
    different, alike = group([100, 200, 300], [1.0] * 3), group([100, 100], [1.0, 1.0])
    assert not built(different, length_strength=0).rows
    assert not built(different, min_len_gate=4000).rows
    assert not built(alike).rows
    assert not any(one.selected for one in built(alike).selections)


def test_all_right_groups_are_left_out_where_the_recipe_says_so():
    assert not built(group([1, 2, 3], [1.0] * 3), drop_all_right=True).rows


@pytest.mark.parametrize("settings", [{}, {"drop_all_right": True}, {"unanswered_reward": 0.0}])
def test_an_all_wrong_group_is_always_left_out(settings):
    unread = Reward(value=0.0, status="unparsable")
    made = group([5, 9, 7], [0.0] * 3)
    made[2] = dataclasses.replace(made[2], reward=unread)
    batch = built(made, **settings)
    assert not batch.rows and "all wrong" in batch.selections[0].reason


def test_groups_are_filtered_each_for_itself():
    other = [long(f"r/{n}", 1.0, 50) for n in (1, 2)]
    batch = built([*group([100, 200], [1.0, 1.0]), *other, *worked_group_of("s")])
    assert [one.selected for one in batch.selections] == [True] * 2 + [False] * 2 + [True] * 4


def test_a_floor_above_the_ceiling_is_refused():
    config = run_config(plugins=[{"use": "lead", "settings": {"weight_floor": 2}}])
    with pytest.raises(ConfigError, match="above weight_ceiling"):
        load_plugins(config.method_view, LearnerPlugin)
