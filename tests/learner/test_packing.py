import math

import pytest
import torch

from learner.batch import build_batch
from learner.packing import (
    collate,
    plan_microbatches,
    plan_rows,
    split_rows,
)
from learner.rows import TrainingRow
from mgrpo.config import ObjectiveConfig
from tests.learner.builders import layer, random_completions, solve_layer


def row(prompt, tokens, *, name="a", advantage=1.0, token_weight=0.5):
    return TrainingRow(
        completion_id=name,
        layer=1,
        prompt_token_ids=prompt,
        token_ids=tokens,
        rollout_logprobs=[-float(token) for token in tokens],
        advantages=[advantage] * len(tokens),
        token_weights=[token_weight] * len(tokens),
    )


def test_ranks_get_about_the_same_number_of_tokens():
    assert split_rows([7, 1, 5, 3, 4], 2) == [[0, 3], [2, 4, 1]]


def test_ranks_beyond_the_number_of_rows_get_none():
    assert split_rows([4], 3) == [[0], [], []]


def test_rows_of_similar_length_share_a_microbatch():
    assert plan_microbatches([3, 9, 4, 9], 18) == [[1, 3], [2, 0]]


def test_padded_tokens_stay_within_the_budget():
    lengths = torch.randint(1, 60, (200,), generator=torch.Generator().manual_seed(0)).tolist()
    plan = plan_microbatches(lengths, 128)
    assert sorted(index for microbatch in plan for index in microbatch) == list(range(200))
    assert all(len(one) * max(lengths[index] for index in one) <= 128 for one in plan)


def test_a_row_longer_than_the_budget_goes_alone():
    assert plan_microbatches([50, 4, 4], 10) == [[0], [1, 2]]


def test_no_rows_need_no_microbatch():
    assert plan_microbatches([], 10) == []


def test_equal_tokens_of_one_node_go_through_the_output_layer_once():
    # 1 2 -> 3 -> 4 twice, 1 2 -> 3 -> 5, 1 2 -> 6.
    part = collate(
        [row([1, 2], tokens) for tokens in ([3, 4], [3, 5], [3, 4], [6])], merge_prefixes=True
    )
    asked = []

    def model(input_ids, positions, target_ids, *_, with_entropies):
        asked.extend(zip(positions.tolist(), target_ids.tolist(), strict=True))
        return target_ids.float().requires_grad_(), positions.float()

    logprobs, entropies = part.read_by(model, temperature=1.0, chunk_tokens=8)
    assert asked == [(1, 3), (1, 6), (2, 4), (2, 5)]
    assert logprobs.tolist() == part.target_ids.tolist() == [3, 4, 3, 5, 3, 4, 6]
    assert entropies.tolist() == part.positions.tolist() == [1, 2, 1, 2, 1, 2, 1]
    apart = collate([row([1, 2], [3, 4]), row([1, 2], [3, 4])], merge_prefixes=False)
    assert len(apart.distinct) == 4


@pytest.mark.parametrize("merge_prefixes", [False, True])
def test_each_row_is_in_one_microbatch(merge_prefixes):
    rows = [row([1] * length, [2]) for length in (9, 1, 1, 2, 8, 3, 3)]
    plan = plan_rows(rows, budget_tokens=9, merge_prefixes=merge_prefixes)
    assert sorted(index for indices in plan for index in indices) == list(range(7))
    assert plan_rows([], budget_tokens=9, merge_prefixes=merge_prefixes) == []


def test_padded_rows_and_where_each_token_is_predicted():
    rows = [row([1, 2, 3], [4, 5]), row([6], [7], name="b", advantage=-2.0)]
    microbatch = collate(rows, merge_prefixes=False)
    assert microbatch.input_ids.tolist() == [[1, 2, 3, 4], [6, 0, 0, 0]]
    # 3 predicts 4 (place 2), 4 predicts 5 (place 3); in the second row 6 predicts 7 (place 4).
    assert microbatch.positions.tolist() == [2, 3, 4]
    assert microbatch.target_ids.tolist() == [4, 5, 7]
    assert microbatch.rollout_logprobs.tolist() == [-4.0, -5.0, -7.0]
    assert microbatch.advantages.tolist() == [1.0, 1.0, -2.0]
    assert microbatch.token_weights.tolist() == [0.5, 0.5, 0.5]
    assert microbatch.completion_ids == ["a", "b"]
    assert microbatch.num_row_tokens == 5 and microbatch.num_trained_tokens == 3
    assert microbatch.prefix_tree is None


def test_merged_rows_keep_the_order_that_was_asked_for():
    rows = [row([5, 6], [9, 1], name="a"), row([5, 6], [7, 2, 3], name="b", advantage=-2.0)]
    microbatch = collate(rows, merge_prefixes=True)
    # Nodes in sorted order: 5 6 7 2 (b), then 9 (a). 6 predicts 9 and 7.
    assert microbatch.input_ids.tolist() == [[5, 6, 7, 2, 9]]
    assert microbatch.positions.tolist() == [1, 4, 1, 2, 3]
    assert microbatch.target_ids.tolist() == [9, 1, 7, 2, 3]
    assert microbatch.advantages.tolist() == [1.0, 1.0, -2.0, -2.0, -2.0]
    assert microbatch.completion_ids == ["a", "b"]
    assert microbatch.num_row_tokens == 7


@pytest.mark.parametrize("merge_prefixes", [False, True])
def test_an_empty_microbatch_weighs_nothing_but_can_be_computed(merge_prefixes):
    microbatch = collate([], merge_prefixes=merge_prefixes)
    assert microbatch.is_empty and microbatch.num_trained_tokens == 0
    assert microbatch.input_ids.shape == (1, 1) and len(microbatch.positions) == 1
    assert microbatch.token_weights.tolist() == [0.0]


@pytest.mark.parametrize("merge_prefixes", [False, True])
@pytest.mark.parametrize("num_ranks", [1, 2, 4])
@pytest.mark.parametrize("budget_tokens", [1, 40, 10_000])
def test_the_loss_does_not_depend_on_ranks_or_microbatches(
    num_ranks, budget_tokens, merge_prefixes
):
    layers = [solve_layer(), layer(aggregation="token_mean", denominator="retained")]
    rows = build_batch(random_completions(), layers, ObjectiveConfig()).rows
    total = 0.0
    for share in split_rows([one.num_input_tokens for one in rows], num_ranks):
        own = [rows[index] for index in share]
        for indices in plan_rows(own, budget_tokens=budget_tokens, merge_prefixes=merge_prefixes):
            part = collate([own[index] for index in indices], merge_prefixes=merge_prefixes)
            made_up_losses = part.target_ids.double().sin()
            total += float((made_up_losses * part.token_weights * part.advantages).sum())
    expected = sum(
        weight * advantage * math.sin(token)
        for one in rows
        for weight, advantage, token in zip(
            one.token_weights, one.advantages, one.token_ids, strict=True
        )
    )
    assert total == pytest.approx(expected, abs=1e-6) and abs(expected) > 1e-3
