"""Corrections that train again: the ratio is against the policy that sampled them."""

import math

import pytest
import torch

from learner.batch import build_batch
from learner.objective import microbatch_loss, old_logprobs_of, token_measurements
from learner.packing import collate
from learner.replay import replayed_rows
from mgrpo.config import ObjectiveConfig
from mgrpo.types import Replayed
from tests.learner.builders import attempts, long, plugin, solve_layer

WITH_KL = ObjectiveConfig(kl={"weight": 0.5})


def replayed(num_tokens=1, advantage=2.0, weight=1.0, **changes):
    one = long("q/1/1", 1.0, num_tokens, **changes)
    return Replayed(completion=one, advantage=advantage, weight=weight)


def loss_at(rows, ratios, objective=WITH_KL):
    """The loss and its gradient where the policy has moved by these ratios since sampling."""
    microbatch = collate(rows, merge_prefixes=False)
    moved = torch.tensor(ratios).log()
    logprobs = (microbatch.rollout_logprobs + moved).requires_grad_()
    old = old_logprobs_of(microbatch, logprobs.detach())
    nothing = torch.zeros(len(ratios))
    loss = microbatch_loss(microbatch, logprobs, old, logprobs.detach() - 1, nothing, objective)
    loss.backward()
    return loss.item(), logprobs.grad.tolist()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),  # inside the clip range: d(-ratio A)/d logp = -ratio A
        (1.5, 2.0, -2.4, 0.0),  # clipped at 1.2
        (0.5, 2.0, -1.0, -1.0),
    ],
)
def test_the_loss_is_the_clipped_objective_of_the_true_ratio(ratio, advantage, loss, gradient):
    found, found_gradient = loss_at(replayed_rows([replayed(1, advantage)]), [ratio])
    assert found == pytest.approx(loss, rel=1e-6)
    assert found_gradient == pytest.approx([gradient], rel=1e-6)


def test_a_fresh_row_of_the_same_tokens_has_ratio_one_wherever_the_policy_is():
    fresh = build_batch(attempts([1.0, 0.0]), [solve_layer()], ObjectiveConfig()).rows
    off = ObjectiveConfig(importance="none")
    _, gradient = loss_at(fresh, [1.5, 0.3], off)
    advantage = fresh[0].advantages[0]
    assert gradient == pytest.approx([-advantage / 2, advantage / 2])


def test_the_loss_is_a_mean_over_tokens_and_then_over_completions():
    rows = replayed_rows([replayed(1, weight=3.0), replayed(4, weight=3.0)])
    assert [row.token_weights.tolist() for row in rows] == [[1.5], [0.375] * 4]
    assert [row.advantages.tolist() for row in rows] == [[2.0], [2.0] * 4]


def test_they_carry_no_kl_term():
    (row,) = replayed_rows([replayed()])
    assert row.kl_weight == 0.0 and row.is_replayed
    assert row.completion_id == "q/1/1 (replayed)"


def test_tokens_that_were_put_in_or_masked_stay_so():
    mask = [True, False, True]
    (row,) = replayed_rows([replayed(3, sampled_mask=mask, train_mask=mask)])
    assert row.is_sampled.tolist() == mask
    assert row.token_weights.tolist() == [0.5, 0.0, 0.5]
    loss, gradient = loss_at([row], [1.1, 7.0, 1.1])
    assert loss == pytest.approx(-2.2) and gradient == pytest.approx([-1.1, 0.0, -1.1])


def test_a_trained_token_that_no_policy_sampled_has_ratio_one():
    (row,) = replayed_rows([replayed(2, sampled_mask=[True, False])])
    loss, gradient = loss_at([row], [1.5, 1.5])
    assert loss == pytest.approx(-(2.4 + 2.0) / 2) and gradient == pytest.approx([0.0, -1.0])


def test_clipping_of_replayed_tokens_is_measured():
    rows = replayed_rows([replayed(2)])
    microbatch = collate(rows, merge_prefixes=False)
    logprobs = microbatch.rollout_logprobs + torch.tensor([math.log(1.1), math.log(1.5)])
    old = old_logprobs_of(microbatch, logprobs)
    found = token_measurements(microbatch, logprobs, old, None, torch.zeros(2), WITH_KL)
    assert found["learner/clip_fraction"].tolist() == [False, True]
    assert found["mismatch/logprob_gap_mean"].tolist() == [0.0, 0.0]  # no gap of engines


def test_the_recipes_clip_range_is_not_measured_beside_an_objective_of_a_plug_ins_own():
    microbatch = collate(replayed_rows([replayed(2)]), merge_prefixes=False)
    logprobs = microbatch.rollout_logprobs + 1.0
    measured = [
        token_measurements(
            microbatch, logprobs, logprobs, None, torch.zeros(2), WITH_KL, [plugin(use)]
        )
        for use in ("reinforce", "rloo")
    ]
    assert ["learner/clip_fraction" in one for one in measured] == [False, True]


def test_nothing_is_replayed_without_corrections():
    assert replayed_rows([]) == []
