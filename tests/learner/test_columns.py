"""A step's completions as columns: rows, tokens, masks, spans and groups."""

import dataclasses

import pytest
import torch

from learner.batch import step_batch
from mgrpo.types import Reward
from tests.learner.builders import completion, layer, long, solve_layer, with_status

CHAIN = [solve_layer(), layer()]


def columns(*completions):
    return step_batch(completions, CHAIN)


def floats(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def three():
    """Two attempts and a correction, of 2, 1 and 3 tokens."""
    return columns(long("q/1", 1.0, 2), long("q/2", 0.0, 1), long("q/1/1", 1.0, 3))


def test_rows_go_out_to_their_tokens_and_back(three):
    assert three.num_tokens == 6
    assert three.lengths.tolist() == [2, 1, 3]
    assert three.spread(floats(1, 2, 3)).tolist() == [1, 1, 2, 3, 3, 3]
    assert three.row_sums(floats(1, 2, 4, 8, 16, 32)).tolist() == [3, 4, 56]


def test_means_are_over_a_rows_own_tokens_or_over_those_asked_for(three):
    values = floats(1, 3, 5, 2, 4, 9)
    assert three.row_means(values).tolist() == [2, 5, 5]
    mask = torch.tensor([True, False, False, True, True, False])
    assert three.row_means(values, mask).tolist() == [1, 0, 3]  # 0 where nothing is


def test_what_is_left_out_of_a_mean_may_be_anything(three):
    values = floats(1, float("nan"), 5, 2, 4, float("inf"))
    mask = torch.tensor([True, False, True, True, True, False])
    assert three.row_means(values, mask).tolist() == [1, 5, 3]


def test_layers_and_what_the_checks_said(three):
    assert three.in_layers(frozenset({1})).tolist() == [True, True, False]
    assert three.in_layers(frozenset({1, 2})).tolist() == [True] * 3
    assert three.in_layers(frozenset()).tolist() == [False] * 3
    assert three.rewards.tolist() == [1, 0, 1]
    assert three.is_correct.tolist() == [True, False, True]


def test_a_reward_is_not_what_makes_an_answer_right():
    shaped = dataclasses.replace(completion("q/1", 1.0), reward=Reward(value=3.0, correct=False))
    batch = columns(shaped, with_status(completion("q/2", 0.0), "timeout"))
    assert batch.rewards.tolist() == [3, 0]
    assert batch.is_correct.tolist() == [False, False]
    assert batch.is_usable.tolist() == [True, False]


def test_tokens_are_sampled_and_trained_unless_their_masks_say_otherwise():
    batch = columns(
        long("q/1", 1.0, 2, sampled_mask=[True, False]),
        long("q/2", 1.0, 2, train_mask=[False, True]),
    )
    assert batch.is_sampled.tolist() == [True, False, True, True]
    assert batch.is_trained.tolist() == [True, True, False, True]


def test_spans_are_found_by_name_in_their_own_rows():
    batch = columns(
        long("q/1", 1.0, 3, spans={"steps": [(0, 1), (2, 3)], "other": [(1, 2)]}),
        long("q/2", 1.0, 2),
        long("q/3", 1.0, 2, spans={"steps": [(1, 2)]}),
    )
    assert batch.in_span("steps").int().tolist() == [1, 0, 1, 0, 0, 0, 1]
    assert batch.in_span("other").int().tolist() == [0, 1, 0, 0, 0, 0, 0]
    assert not batch.in_span("nothing").any()


def test_groups_are_those_whose_rewards_are_compared():
    batch = columns(
        completion("q/1", 1.0),
        completion("q/1/1", 1.0),
        completion("q/2", 0.0),
        completion("q/1/2", 0.0),
        completion("q/2/1", 0.0),
    )
    assert batch.group_ids.tolist() == [0, 1, 0, 1, 2]
    assert batch.group_means(floats(1, 10, 3, 30, 50)).tolist() == [2, 20, 2, 20, 50]


def test_a_groups_mean_leaves_failed_checks_and_masked_rows_out():
    failed = with_status(completion("q/3", 0.0), "error")
    batch = columns(completion("q/1", 1.0), completion("q/2", 0.0), failed)
    values = floats(1, 3, float("nan"))
    assert batch.group_means(values).tolist() == [2, 2, 2]
    assert batch.group_means(values, torch.tensor([False, True, True])).tolist() == [3, 3, 3]
    assert batch.group_means(values, torch.tensor([False] * 3)).tolist() == [0, 0, 0]


def test_parents_outside_the_step_can_be_looked_up():
    child, parent = completion("q/1/1", 1.0), completion("q/1", 0.0)
    batch = step_batch([child], CHAIN, context=[parent])
    assert batch.parents == {"q/1": parent, "q/1/1": child}
    assert batch.num_tokens == 1


def test_no_completions_are_columns_of_nothing():
    batch = columns()
    assert batch.num_tokens == 0 and batch.spread(floats()).tolist() == []
    assert batch.in_layers(frozenset({1})).tolist() == []
    assert batch.group_means(floats()).tolist() == []
