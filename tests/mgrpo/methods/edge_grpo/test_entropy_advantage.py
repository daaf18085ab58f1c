"""EDGE-GRPO's advantages: divided by a completion's relative entropy."""

import pytest
import torch
from torch.testing import assert_close

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from tests.learner.builders import layer, long, plugin, solve_layer, with_status

EXACT = ObjectiveConfig()
Z_SCORE = {"ddof": 0, "epsilon": 0.0}
CHAIN = [solve_layer(advantage=Z_SCORE), layer(advantage=Z_SCORE, select="none")]


def batch_of(completions, entropies=None, *, chain=CHAIN, **settings):
    measurements = {} if entropies is None else {"entropies": tokens(entropies)}
    part = plugin("entropy_advantage", **settings)
    return build_batch(completions, chain, EXACT, plugins=[part], measurements=measurements)


def tokens(entropies):
    return torch.tensor(entropies, dtype=torch.float64)


def advantages(completions, entropies=None, **settings):
    """Each completion's advantage, the same on all of its tokens."""
    rows = batch_of(completions, entropies, **settings).all_rows
    assert all(len(set(row.advantages)) == 1 for row in rows)
    return [row.advantages[0] for row in rows]


def pair(first_length=1, second_length=1, **second):
    return [long("q/1", 1.0, first_length), long("q/2", 0.0, second_length, **second)]


def test_a_completions_entropy_is_the_mean_over_its_tokens():
    # 0.2 and 0.4: relative 2/3 and 4/3.
    assert advantages(pair(2, 1), [0.3, 0.1, 0.4]) == pytest.approx([1.5, -0.75])


def test_without_a_mask_padded_places_are_in_the_mean():
    # Four places each: (0.3 + 0.1 + 2 x 1.0) / 4 = 0.6 and 4 x 0.3 / 4 = 0.3.
    entropies = [0.3, 0.1, 0.3, 0.3, 0.3, 0.3]
    found = advantages(pair(2, 4), entropies, mask=False, pad_entropy=1.0)
    assert found == pytest.approx([0.45 / 0.6, -0.45 / 0.3])
    # Padding that counts as 0: 0.1 and 0.3.
    found = advantages(pair(2, 4), entropies, mask=False)
    assert found == pytest.approx([0.2 / 0.1, -0.2 / 0.3])


def test_bounds_hold_the_relative_entropy():
    found = advantages(pair(), [0.1, 1.9], clamp=(0.5, 1.5))
    assert found == pytest.approx([1 / 0.5, -1 / 1.5])


def test_a_batchs_mean_is_over_all_usable_completions_of_the_layers():
    two_groups = [*pair(), long("r/1", 1.0, 1), long("r/2", 0.0, 1)]
    entropies = [0.1, 0.3, 0.5, 0.7]
    by_group = advantages(two_groups, entropies)
    assert by_group == pytest.approx([0.2 / 0.1, -0.2 / 0.3, 0.6 / 0.5, -0.6 / 0.7])
    by_batch = advantages(two_groups, entropies, norm="batch")
    assert by_batch == pytest.approx([0.4 / 0.1, -0.4 / 0.3, 0.4 / 0.5, -0.4 / 0.7])


def test_a_failed_check_is_not_in_the_groups_mean():
    three = [*pair(), with_status(long("q/3", 0.0, 1), "timeout")]
    assert advantages(three, [0.1, 0.3, 9.0])[:2] == pytest.approx([2.0, -0.2 / 0.3])


def test_a_group_without_variance_stays_at_nothing_and_certainty_is_finite():
    equal = [long("q/1", 1.0, 1), long("q/2", 1.0, 1)]
    assert advantages(equal, [0.1, 0.3]) == [0.0, 0.0]
    certain = advantages(pair(), [0.0, 0.3])
    assert certain[0] == pytest.approx(0.1500005 / 1e-6)
    assert all(map(torch.isfinite, tokens(certain)))


def test_recorded_logprobs_stand_in_for_entropies():
    two = pair(2, 1)
    two[0] = long("q/1", 1.0, 2, rollout_logprobs=[-0.3, -0.1])
    two[1] = long("q/2", 0.0, 1, rollout_logprobs=[-0.4])
    part = plugin("entropy_advantage", entropy_source="rollout")
    assert part.wanted_measurements() == frozenset()
    assert plugin("entropy_advantage").wanted_measurements() == {"entropies"}
    assert advantages(two, entropy_source="rollout") == pytest.approx([1.5, -0.75])


def test_tokens_that_no_policy_sampled_have_no_recorded_logprob_to_count():
    mixed = long(
        "q/1",
        1.0,
        3,
        rollout_logprobs=[-0.3, 0.0, -0.1],
        sampled_mask=[True, False, True],
    )
    put_in = long("q/3", 1.0, 2, rollout_logprobs=[0.0, 0.0], sampled_mask=[False, False])
    sampled = long("q/2", 0.0, 1, rollout_logprobs=[-0.4])
    plain = batch_of([mixed, sampled, put_in], entropy_source="rollout")
    # Of three, two are right: 1/sqrt(2) and -sqrt(2). 0.2 and 0.4 have the mean 0.3; the third
    # has no estimate, so it neither moves the mean nor is moved by it.
    expected = [0.7071068 * 1.5, -1.4142136 * 0.75, 0.7071068]
    assert [row.advantages[0] for row in plain.all_rows] == pytest.approx(expected)


# --- the gradient of the entropy itself ---


def entropy_weights(completions, entropies, **settings):
    rows = batch_of(completions, entropies, detach=False, **settings).all_rows
    return [
        value
        for row in rows
        for value in (
            [0.0] * len(row.token_ids) if row.entropy_weights is None else row.entropy_weights
        )
    ]


def gradient_by_definition(completions, entropies, *, longest=None, clamp=None):
    """d loss / d token entropy of -sum_i mean_t(A_i m / P_i) / N, the group's mean m constant."""
    leaf = tokens(entropies).requires_grad_()
    parts = leaf.split([len(one.token_ids) for one in completions])
    means = torch.stack([part.sum() / (longest or len(part)) for part in parts])
    relative = means / means.detach().mean()
    if clamp is not None:
        relative = relative.clamp(*clamp)
    rewards = tokens([one.reward.value for one in completions])
    z = (rewards - rewards.mean()) / rewards.std(correction=0)
    (-(z / relative).mean()).backward()
    return leaf.grad.tolist()


THREE = [long("q/1", 1.0, 2), long("q/2", 0.0, 3), long("q/3", 0.0, 1)]
ENTROPIES = [0.3, 0.1, 0.5, 0.2, 0.8, 1.2]


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({}, {}),
        ({"mask": False}, {"longest": 3}),
        ({"clamp": (0.5, 1.5)}, {"clamp": (0.5, 1.5)}),
    ],
)
def test_the_entropys_own_gradient_is_that_of_the_definition(settings, changes):
    found = entropy_weights(THREE, ENTROPIES, **settings)
    expected = gradient_by_definition(THREE, ENTROPIES, **changes)
    assert_close(tokens(found), tokens(expected))
    assert any(expected)


def test_a_detached_entropy_has_no_gradient():
    assert all(row.entropy_weights is None for row in batch_of(THREE, ENTROPIES).rows)


def test_tokens_without_loss_have_no_entropy_loss_either():
    masked = [True, False, True]
    three = [THREE[0], long("q/2", 0.0, 3, train_mask=masked), THREE[2]]
    found = entropy_weights(three, ENTROPIES)
    assert [value != 0 for value in found] == [True, True, *masked, True]
