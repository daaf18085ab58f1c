"""Seven rules of order that keep objectives from going wrong in silence.

Each is tried with plug-ins of ours through `build_batch` and `microbatch_loss`, so a change of the
order in which stages work breaks it.
"""

import dataclasses
import math

import pytest
import torch

from learner.batch import build_batch
from learner.columns import StepBatch
from learner.losses import zero_where_masked
from learner.objective import microbatch_loss
from learner.packing import collate
from learner.plugin import LearnerPlugin, RowFilter
from mgrpo.config import ObjectiveConfig
from mgrpo.config.base import StrictConfig
from mgrpo.types import EXPERT, Reward
from tests.learner.builders import completion, long, plugin, solve_layer, with_status

EXACT = ObjectiveConfig()
Z_SCORE = {"epsilon": 0.0}


class Hook(LearnerPlugin):
    """A plug-in made of functions."""

    def __init__(self, **hooks):
        super().__init__(StrictConfig(), frozenset({1, 2}))
        for name, hook in hooks.items():
            setattr(self, name, hook)


def group(rewards, name="q"):
    return [completion(f"{name}/{n}", value) for n, value in enumerate(rewards, start=1)]


def built(completions, *plugins, objective=EXACT, measurements=None, **settings):
    return build_batch(
        completions,
        [solve_layer(**{"advantage": Z_SCORE, **settings})],
        objective,
        plugins=plugins,
        measurements=measurements,
    )


def advantages(batch):
    return [row.advantages[0] for row in batch.all_rows]


def keep(is_kept, is_trained=None):
    """A plug-in that filters by place."""

    def filter_rows(batch):
        kept = torch.tensor(is_kept)
        trained = torch.ones_like(kept) if is_trained is None else torch.tensor(is_trained)
        return RowFilter(is_kept=kept, is_trained=trained, reason="the test says so")

    return Hook(filter_rows=filter_rows)


# --- 1. Filters read what the checks said, not what shaping made of it ---


@pytest.mark.parametrize(
    ("use", "settings"), [("unlikeliness", {}), ("lead", {"drop_all_right": True})]
)
def test_a_group_that_only_shaping_tells_apart_is_dropped(use, settings):
    """Four right answers of different lengths and likelihoods. By default lead keeps them, as its
    authors do: it compares right answers by length on purpose."""
    completions = [long(f"q/{n}", 1.0, n) for n in range(1, 5)]
    logprobs = -torch.arange(1, 11, dtype=torch.float64)
    measurements = {"policy_logprobs": logprobs}
    part = plugin(use, **settings)
    batch = step_batch_of(completions, measurements)
    assert len(set(part.shape_rewards(batch, batch.rewards).tolist())) == 4
    assert not built(completions, part, measurements=measurements).rows


def step_batch_of(completions, measurements):
    return StepBatch(
        completions=completions,
        parents={},
        groups=[one.group_key for one in completions],
        step=0,
        measurements=dict(measurements),
    )


def test_filters_see_the_rewards_of_the_checks_wherever_the_shaper_stands():
    seen = []

    def filter_rows(batch):
        seen.append((batch.rewards.tolist(), batch.is_correct.tolist()))

    shaper = Hook(shape_rewards=lambda batch, rewards: rewards - 10)
    built(group([1.0, 0.0]), shaper, Hook(filter_rows=filter_rows))
    assert seen == [([1.0, 0.0], [True, False])]


# --- 2. Groups count rows masked from the loss, and not those removed ---


def test_a_row_without_loss_still_counts_in_its_groups_statistics():
    """[1, 0, 0] has mean 1/3 and standard deviation 0.577350."""
    batch = built(group([1.0, 0.0, 0.0]), keep([True] * 3, [True, True, False]))
    assert advantages(batch) == pytest.approx([1.154701, -0.577350, -0.577350], abs=1e-6)
    assert [row.completion_id for row in batch.rows] == ["q/1", "q/2"]


def test_a_removed_row_is_in_no_statistics():
    """[1, 0] has mean 1/2 and standard deviation 0.707107."""
    batch = built(group([1.0, 0.0, 0.0]), keep([True, True, False]))
    assert advantages(batch) == pytest.approx([0.707107, -0.707107, 0], abs=1e-6)


# --- 3. Weights of rows and prompts come after normalisation ---


def test_before_normalisation_a_weight_would_cancel():
    """What rule 3 guards against: the spread is divided out again."""
    shaper = Hook(shape_rewards=lambda batch, rewards: 5 * rewards)
    rewards = [1.0, 0.0, 0.0, 1.0]
    assert advantages(built(group(rewards), shaper)) == pytest.approx(
        advantages(built(group(rewards)))
    )


@pytest.mark.parametrize("use", ["group_dro", "agro", "lead"])
def test_weights_of_rows_survive_the_division_by_the_spread(use):
    """A problem that is mostly failed counts more than one that is mostly solved."""
    settings = {
        "group_dro": {"rate": 1.0},
        "agro": {"features": "tokens", "warmup_steps": 0, "num_groups": 2, "share": 0.5},
        "lead": {"length_strength": 0.0},
    }[use]
    easy = [
        dataclasses.replace(one, domain="easy", prompt=[5, 6])
        for one in group([1.0, 1.0, 1.0, 0.0], "easy")
    ]
    hard = [
        dataclasses.replace(one, domain="hard", prompt=[7, 8])
        for one in group([1.0, 0.0, 0.0, 0.0], "hard")
    ]
    plain = advantages(built([*easy, *hard]))
    found = advantages(built([*easy, *hard], plugin(use, **settings)))
    factors = [value / base for value, base in zip(found, plain, strict=True)]
    assert factors[4] != pytest.approx(factors[0], abs=1e-3)
    if use != "agro":  # what its groups are is not ours to say
        assert factors[4] > factors[0]


# --- 4. Without spread the advantage is 0, not noise over epsilon ---


@pytest.mark.parametrize("epsilon", [0.0, 1e-6])
def test_rewards_that_differ_by_rounding_give_exactly_nothing(epsilon):
    """0.1 + 0.2 is not 0.3."""
    noisy = group([0.1 + 0.2, 0.3, 0.3])
    assert noisy[0].reward.value != noisy[1].reward.value
    for parts in ([], [plugin("dagrpo", epsilon=epsilon)]):
        assert advantages(built(noisy, *parts, advantage={"epsilon": epsilon})) == [0.0, 0.0, 0.0]


# --- 5. Nothing reads the old log-probability of what no policy sampled ---


def test_losses_and_gradients_do_not_change_when_it_is_not_a_number():
    expert = completion(
        "q/3",
        1.0,
        token_ids=[9, 8],
        rollout_logprobs=[math.nan, math.nan],
        sampled_mask=[False, False],
        augmented_by=EXPERT,
    )
    parts = [plugin("dagrpo"), plugin("shaped_probability")]
    rows = built([*group([0.0, 0.0]), expert], *parts).rows
    found = []
    for old_of_expert in (-1.0, math.nan):
        piece = collate(rows, merge_prefixes=False)
        own = torch.tensor([-1.0, -2.0, -0.5, -0.7]).requires_grad_()
        old = torch.tensor([-1.1, -1.9, old_of_expert, old_of_expert])
        loss = microbatch_loss(piece, own, old, None, own * 0, EXACT, parts)
        loss.backward()
        found.append((loss.item(), own.grad.tolist()))
    assert found[0] == found[1]
    assert all(map(math.isfinite, found[0][1])) and all(found[0][1])


# --- 6. Counts are taken after filtering, once, for every term ---


@pytest.mark.parametrize("aggregation", ["seq_mean", "token_mean"])
def test_what_a_filter_removed_is_in_no_denominator(aggregation):
    completions = [long(f"q/{n}", float(n == 1), n) for n in (1, 2, 3)]
    filtered = built(completions, keep([True, True, False]), aggregation=aggregation).rows
    without = built(completions[:2], aggregation=aggregation).rows
    assert [row.token_weights.tolist() for row in filtered] == [
        row.token_weights.tolist() for row in without
    ]


def test_a_failed_check_and_a_removed_row_count_alike():
    completions = group([1.0, 0.0, 0.0])
    failed = [*completions[:2], with_status(completions[2], "timeout")]
    removed = built(completions, keep([True, True, False])).rows
    assert removed == built(failed).rows


def test_policy_and_kl_terms_share_one_denominator():
    """With KL weight 0.5: the sum over tokens of w (-A + 0.5 (ref - own)²/2), w = 1 / 2."""
    objective = ObjectiveConfig(
        kl={"weight": 0.5, "estimator": "k2"},
        importance="none",
    )
    rows = built(group([1.0, 0.0, 1.0]), keep([True, True, False]), objective=objective).rows
    piece = collate(rows, merge_prefixes=False)
    own = torch.tensor([-1.0, -1.0])
    loss = microbatch_loss(piece, own, own, own - 2, own * 0, objective)
    assert loss.item() == pytest.approx(0.5 * 2 * 0.5 * 2)  # the advantages cancel


# --- 7. Masks come after where(), for 0 * inf is not a number ---


def test_what_stands_where_nothing_trains_cannot_reach_the_loss():
    masked = long("q/1", 1.0, 2, train_mask=[True, False])
    rows = built([masked, completion("q/2", 0.0)]).rows
    piece = collate(rows, merge_prefixes=False)
    found = []
    for wild in (-1.0, -math.inf, math.nan):
        own = torch.tensor([-1.0, wild, -2.0]).requires_grad_()
        part = Hook(policy_objective=lambda tokens: tokens.advantages * tokens.policy_logprobs)
        objective = ObjectiveConfig(importance="none")
        loss = microbatch_loss(piece, own, own.detach(), None, own * 0, objective, [part])
        loss.backward()
        found.append((loss.item(), own.grad[[0, 2]].tolist()))
    assert found[0] == found[1] == found[2]


def test_a_mask_alone_would_not_be_enough():
    values, mask = torch.tensor([1.0, math.inf]), torch.tensor([True, False])
    assert not (values * mask).isfinite().all()
    assert zero_where_masked(values, mask).tolist() == [1.0, 0.0]


def test_an_unusable_reward_is_in_no_statistics_whatever_its_value():
    broken = dataclasses.replace(completion("q/3", 0.0), reward=Reward(value=1e300, status="error"))
    plain = advantages(built(group([1.0, 0.0])))
    assert advantages(built([*group([1.0, 0.0]), broken]))[:2] == plain
