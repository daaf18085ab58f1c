"""Worked numbers of every method, through the code that training uses.

What is shown elsewhere is not repeated: MGRPO's example of four attempts and twelve corrections
in test_batch.py, what belongs to one method in its folder of tests/mgrpo/methods, the pure
functions in test_advantages.py and test_losses.py.
"""

import math

import pytest
import torch

from learner.batch import build_batch
from learner.objective import microbatch_loss
from learner.packing import collate
from mgrpo.config import ObjectiveConfig
from tests.learner.builders import (
    attempts,
    completion,
    corrections,
    layer,
    long,
    plugin,
    solve_layer,
)

EXACT = {"ddof": 0, "epsilon": 0.0}


def objective():
    return ObjectiveConfig()


def loss_of(rows, settings, *, moved=None, ref_gap=None):
    """Loss, and gradient by log-probability, `moved` nats away from where the step began."""
    microbatch = collate(rows, merge_prefixes=False)
    old = microbatch.rollout_logprobs
    logprobs = (old + (0.0 if moved is None else torch.tensor(moved))).requires_grad_()
    ref = None if ref_gap is None else logprobs.detach() - ref_gap
    entropies = torch.zeros(len(old))
    loss = microbatch_loss(microbatch, logprobs, old, ref, entropies, settings)
    loss.backward()
    return loss.item(), logprobs.grad.tolist()


# --- GRPO ---


@pytest.mark.parametrize(
    ("rewards", "settings", "expected"),
    [
        ([1, 0, 0, 1], {}, [1, -1, -1, 1]),
        ([1, 0, 0, 1], {"ddof": 1}, [0.866025, -0.866025, -0.866025, 0.866025]),
        ([1, 0, 0, 1], {"ddof": 1, "epsilon": 1e-4}, [0.865875, -0.865875, -0.865875, 0.865875]),
        ([1, 0, 0, 0], {}, [1.732051, -0.577350, -0.577350, -0.577350]),
        ([1, 0, 0, 0], {"ddof": 1}, [1.5, -0.5, -0.5, -0.5]),
        ([1, 0, 0, 1], {"scale_by_std": False}, [0.5, -0.5, -0.5, 0.5]),
        ([1, 1, 1, 1], {}, [0, 0, 0, 0]),
        ([0, 0, 0, 0], {"ddof": 1}, [0, 0, 0, 0]),
    ],
)
def test_a_group_of_attempts(rewards, settings, expected):
    batch = build_batch(
        attempts(rewards), [solve_layer(advantage={**EXACT, **settings})], objective()
    )
    found = [row.advantages[0] for row in batch.all_rows]
    assert found == pytest.approx(expected, abs=1e-6)
    assert bool(batch.rows) == any(expected)


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [("seq_mean", -0.125), ("token_mean", -0.433333), ("fixed_length", -0.1625)],
)
def test_the_clipped_loss_of_two_outputs(aggregation, expected):
    """Ratios [1.3, 0.9] and [0.7], advantages 1 and -1: terms [1.2, 0.9] and [-0.8]."""
    solve = solve_layer(advantage=EXACT, aggregation=aggregation, max_completion_tokens=4)
    rows = build_batch([long("q/1", 1.0, 2), long("q/2", 0.0, 1)], [solve], objective()).rows
    moved = [math.log(1.3), math.log(0.9), math.log(0.7)]
    loss, gradient = loss_of(rows, objective(), moved=moved)
    assert loss == pytest.approx(expected, abs=1e-6)
    assert [value != 0 for value in gradient] == [False, True, False]


# --- MGRPO ---


def test_the_layers_losses_add_up_with_the_second_ones_weight():
    half = [solve_layer(advantage=EXACT), layer(advantage=EXACT, loss_weight=0.5)]
    both = [*attempts(), *corrections()]
    whole = build_batch(
        both, [solve_layer(advantage=EXACT), layer(advantage=EXACT)], objective()
    ).all_rows
    halved = build_batch(both, half, objective()).all_rows
    for one, other in zip(whole, halved, strict=True):
        factor = 1.0 if one.layer == 1 else 0.5
        assert other.token_weights.tolist() == [factor * weight for weight in one.token_weights]


def test_as_many_tokens_carry_weight_as_the_correction_has():
    child = long("q/1/1", 1.0, 5, prompt=[1, 2, 9, 9, 7])
    (row,) = build_batch(
        [child], [solve_layer(advantage=EXACT), layer(advantage="const_positive")], objective()
    ).rows
    assert sum(weight > 0 for weight in row.token_weights) == len(row.token_ids) == 5


# --- EDGE-GRPO ---


def four_entropies():
    measurements = {"entropies": torch.tensor([0.2, 0.4, 0.8, 0.6], dtype=torch.float64)}
    parts = [plugin("entropy_advantage")]
    return build_batch(
        attempts(),
        [solve_layer(advantage=EXACT)],
        objective(),
        plugins=parts,
        measurements=measurements,
    )


def test_advantages_over_relative_entropies():
    found = [row.advantages[0] for row in four_entropies().rows]
    assert found == pytest.approx([2.5, -1.25, -0.625, 0.833333], abs=1e-6)


def test_the_gradient_of_an_entropy_that_is_not_detached():
    measurements = {"entropies": torch.tensor([0.2, 0.4], dtype=torch.float64)}
    parts = [plugin("entropy_advantage", detach=False)]
    batch = build_batch(
        attempts([1, 0]),
        [solve_layer(advantage=EXACT)],
        objective(),
        plugins=parts,
        measurements=measurements,
    )
    microbatch = collate(batch.rows, merge_prefixes=False)
    entropies = torch.tensor([0.2, 0.4], requires_grad=True)
    old = microbatch.rollout_logprobs
    microbatch_loss(microbatch, old, old, None, entropies, objective()).backward()
    assert entropies.grad.tolist() == pytest.approx([3.75, -0.9375])


# --- SCoRe ---


def score_chain(stage):
    first = {"advantage": "none", "kl_weight": 0.1} if stage == 1 else {"advantage": "raw_reward"}
    return [solve_layer(**first), layer(advantage="raw_reward", select="none", kl_weight=0.01)]


@pytest.mark.parametrize(
    ("first", "second", "expected", "total"),
    [(0, 1, 11, 11), (1, 0, -10, -9), (1, 1, 1, 2), (0, 0, 0, 0)],
)
def test_the_returns_of_both_turns(first, second, expected, total):
    family = [completion("q/1", float(first)), completion("q/1/1", float(second))]
    parts = [plugin("correction_bonus", alpha=10)]
    rows = build_batch(family, score_chain(2), objective(), plugins=parts).all_rows
    assert rows[1].advantages.tolist() == [expected]
    assert rows[0].advantages[0] + rows[1].advantages[0] == total


def test_in_stage_one_the_first_turn_is_moved_by_the_penalty_alone():
    k2 = ObjectiveConfig(kl={"estimator": "k2"})
    family = [*attempts([1.0, 0.0]), completion("q/1/1", 0.0)]
    parts = [plugin("correction_bonus")]
    batch = build_batch(family, score_chain(1), k2, plugins=parts)
    turn1 = [row for row in batch.rows if row.layer == 1]
    assert [row.completion_id for row in turn1] == ["q/1", "q/2"]
    assert all(row.advantages.tolist() == [0.0] for row in turn1)
    # k2's gradient is the difference itself: weight 1/2, factor 0.1, difference 0.7.
    _, gradient = loss_of(turn1, k2, ref_gap=0.7)
    assert gradient == pytest.approx([0.035, 0.035])
    _, gradient = loss_of(turn1, k2, ref_gap=0.0)
    assert gradient == [0.0, 0.0]


def test_each_layer_has_its_own_penalty():
    family = [completion("q/1", 1.0), completion("q/1/1", 1.0)]
    rows = build_batch(family, score_chain(1), ObjectiveConfig(kl={"weight": 0.5})).all_rows
    assert [row.kl_weight for row in rows] == [0.1, 0.01]
    plain = [solve_layer(advantage=EXACT), layer(advantage=EXACT)]
    rows = build_batch(family, plain, ObjectiveConfig(kl={"weight": 0.5})).all_rows
    assert [row.kl_weight for row in rows] == [0.5, 0.5]


# --- all ---


def test_a_step_without_completions_trains_nothing():
    """As where every attempt was right, and only wrong ones are corrected."""
    parts = [plugin("entropy_advantage"), plugin("correction_bonus"), plugin("span_credit")]
    batch = build_batch(
        [], [solve_layer(advantage=EXACT), layer(advantage=EXACT)], objective(), plugins=parts
    )
    assert (batch.rows, batch.selections, batch.metrics) == ([], [], {})
