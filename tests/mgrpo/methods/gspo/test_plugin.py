"""GSPO's objective, as micro-batches put it into the loss."""

import dataclasses

import pytest
import torch

from learner.batch import build_batch
from tests.learner.builders import long, plugin, solve_layer
from tests.learner.objective_cases import (
    SETTINGS,
    objective_and_gradient,
    one_row,
    same_as_direct,
)


def test_gspo_reweights_a_completion_by_the_geometric_mean_of_its_ratios():
    value, gradient = objective_and_gradient(one_row(1.0, 2), [0.1, -0.3], plugin("gspo"))
    assert value == pytest.approx(0.904837, abs=1e-6)
    assert gradient == pytest.approx([0.904837 / 2] * 2, abs=1e-6)


def test_gspo_clips_whole_completions():
    value, gradient = objective_and_gradient(one_row(-1.0, 2), [0.1, -0.3], plugin("gspo"))
    assert value == pytest.approx(-0.9997, abs=1e-9)
    assert gradient == [0.0, 0.0]


@pytest.mark.parametrize("clip", [(3e-4, 4e-4), (0.1, 0.15), (0.9, 9.0)])
def test_gspo_with_cut_groups_is_its_definition(clip):
    low, high = clip

    def direct(own, old, advantage):
        ratio = (own - old).mean().exp()
        return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)

    same_as_direct(direct, plugin("gspo", clip_low=low, clip_high=high))


def test_gspo_lets_advantages_differ_between_tokens():
    (row,) = one_row(1.0, 2)
    row = dataclasses.replace(row, advantages=[1.0, -2.0])
    wide = plugin("gspo", clip_low=0.5, clip_high=0.5)
    value, gradient = objective_and_gradient([row], [0.1, -0.3], wide)
    assert value == pytest.approx(0.904837 * (1 - 2) / 2, abs=1e-6)
    assert gradient == pytest.approx([0.904837 / 2, -0.904837], abs=1e-6)


def test_tokens_without_loss_are_not_in_a_completions_ratio():
    solve = solve_layer(advantage="raw_reward")
    masked = long("q/1", 1.0, 3, train_mask=[True, False, True])
    rows = build_batch([masked], [solve], SETTINGS).rows
    value, gradient = objective_and_gradient(rows, [0.1, 5.0, -0.3], plugin("gspo"))
    assert value == pytest.approx(0.904837, abs=1e-6)
    assert gradient[1] == 0.0
