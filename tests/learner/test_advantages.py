import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from learner.advantages import (
    const_positive_advantages,
    group_advantages,
    improvement_advantages,
    process_advantages,
)


def advantages(rewards, **settings):
    return group_advantages(torch.tensor(rewards, dtype=torch.float64), **settings).tolist()


@pytest.mark.parametrize(
    ("rewards", "settings", "expected"),
    [
        ([1, 0, 0, 1], {"ddof": 0, "epsilon": 0}, [1, -1, -1, 1]),
        ([1, 0, 0, 1], {"ddof": 1, "epsilon": 0}, [0.866025, -0.866025, -0.866025, 0.866025]),
        ([1, 0, 0, 1], {"ddof": 1, "epsilon": 1e-4}, [0.865875, -0.865875, -0.865875, 0.865875]),
        ([1, 0, 0, 0], {"ddof": 0, "epsilon": 0}, [1.732051, -0.577350, -0.577350, -0.577350]),
        ([1, 0, 0, 0], {"ddof": 1, "epsilon": 0}, [1.5, -0.5, -0.5, -0.5]),
        ([1, 0, 0, 1], {"scale_by_std": False}, [0.5, -0.5, -0.5, 0.5]),
        ([1, 1, 0], {"ddof": 0, "epsilon": 0}, [0.707107, 0.707107, -1.414214]),
        ([1, 1, 0], {"ddof": 1, "epsilon": 1e-6}, [0.577349, 0.577349, -1.154699]),
        ([1, 1, 0, 1], {"ddof": 0, "epsilon": 0}, [0.577350, 0.577350, -1.732051, 0.577350]),
    ],
)
def test_a_group_is_centred_and_scaled_as_worked_by_hand(rewards, settings, expected):
    assert advantages(rewards, **settings) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("rewards", [[1, 1, 1, 1], [0, 0, 0, 0], [0.1, 0.1, 0.1]])
@pytest.mark.parametrize("scale_by_std", [True, False])
@pytest.mark.parametrize("epsilon", [0.0, 1e-6])
def test_equal_rewards_give_exactly_zero(rewards, scale_by_std, epsilon):
    found = advantages(rewards, scale_by_std=scale_by_std, epsilon=epsilon)
    assert found == [0.0] * len(rewards)


def test_rewards_that_differ_only_by_rounding_count_as_equal():
    assert advantages([0.3, 0.1 + 0.2, 0.3], epsilon=0.0) == [0.0, 0.0, 0.0]


def test_a_small_but_real_difference_is_not_rounding():
    assert advantages([0.0, 1e-6], ddof=0, epsilon=0.0) == pytest.approx([-1, 1])


def test_half_precision_rewards_are_widened_first():
    found = group_advantages(tensor([1, 0, 0, 1], dtype=torch.bfloat16), epsilon=0.0)
    assert found.dtype == torch.float32
    assert_close(found, tensor([0.866025, -0.866025, -0.866025, 0.866025]))


def test_a_group_of_one_has_nothing_to_compare_with():
    with pytest.raises(ValueError, match="at least 2 rewards"):
        group_advantages(tensor([1.0]))


def test_two_dimensional_rewards_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        group_advantages(torch.zeros(2, 2))


def test_advantages_of_any_group_sum_to_zero():
    generator = torch.Generator().manual_seed(0)
    for size in range(2, 20):
        rewards = torch.rand(size, generator=generator, dtype=torch.float64)
        assert abs(float(group_advantages(rewards).sum())) < 1e-6


def test_each_token_sees_its_own_and_all_later_steps():
    first, second = process_advantages(
        [tensor([1.0, 0.0]), tensor([1.0])],
        [tensor([2, 4]), tensor([3])],
        [4, 4],
        ddof=0,
        epsilon=0.0,
    )
    assert_close(first, tensor([-0.707107, -0.707107, -1.414214, -1.414214]))
    # The fourth token of the second completion comes after its only step.
    assert_close(second, tensor([0.707107, 0.707107, 0.707107, 0.0]))


def test_equal_step_rewards_carry_no_training_signal():
    first, second = process_advantages(
        [tensor([1.0, 1.0]), tensor([1.0])], [tensor([1, 2]), tensor([2])], [2, 2]
    )
    assert first.tolist() == [0.0, 0.0] and second.tolist() == [0.0, 0.0]


def test_improvement_is_what_the_correction_changed():
    corrections, parents = tensor([1.0, 1.0, 0.0, 1.0]), tensor([1.0, 0.0, 1.0, 0.5])
    assert improvement_advantages(corrections, parents).tolist() == [0.0, 1.0, -1.0, 0.5]


def test_const_positive_gives_one_to_each_success():
    assert const_positive_advantages(tensor([True, False, True])).tolist() == [1.0, 0.0, 1.0]
