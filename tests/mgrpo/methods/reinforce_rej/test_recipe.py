"""Reinforce-Rej: the example of its page, by its recipe."""

import pytest

from mgrpo.errors import ConfigError
from tests.learner.builders import long
from tests.learner.estimator_cases import groups
from tests.mgrpo.methods.shipped import (
    advantages_of,
    built,
    loss_and_gradient,
    selected_in,
    shipped,
)

REJ = shipped("reinforce_rej")


def test_groups_that_are_all_right_or_all_wrong_are_left_out():
    """q is mixed, r all right, s all wrong."""
    batch = built(REJ, groups([1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]))
    assert selected_in(batch) == ["q/1", "q/2", "q/3", "q/4"]
    assert {one.reason for one in batch.selections[4:]} == {"all rewards of its group are equal"}
    found = list(advantages_of(batch).values())
    assert found[:4] == [1, -1, -1, 1]


def test_seven_wrong_answers_of_eight_are_all_pushed_down_with_full_weight():
    found = advantages_of(built(REJ, groups([1, 0, 0, 0, 0, 0, 0, 0])))
    assert list(found.values()) == [1] + [-1] * 7


def first_part(lengths: list[int]):
    """Rows of the first of four parts: of a mixed group of two and a uniform one of one. Three more
    problems are the other parts."""
    made = groups([1, 0], [1], lengths=lengths)
    batch = built(REJ, [*made, *(long(f"{name}/1", 0.0, 9) for name in ("u", "v", "w"))])
    assert [len(part.rows) for part in batch.minibatches] == [2, 0, 0, 0]
    return batch.minibatches[0].rows


def test_the_loss_of_a_mixed_group_is_clipped_on_both_sides():
    """Advantages 1 and -1: ratios 1.3 and 1.1 of the right answer give 1.2 and 1.1, ratios 0.7, 2
    and 5 of the wrong one -0.8, -2 and -3. T counts the other group's token."""
    loss, gradient = loss_and_gradient(REJ, first_part([2, 3, 1]), [1.3, 1.1, 0.7, 2.0, 5.0])
    assert loss == pytest.approx(-(1.2 + 1.1 - 0.8 - 2 - 3) / 6)
    assert gradient == pytest.approx([0, -1.1 / 6, 0, 2 / 6, 0])


def test_what_trains_has_the_authors_kl_and_entropy_terms():
    """0.001 each: k3 at d = 0.1, and entropies 0.4 and 0.6, over four tokens."""
    rows = first_part([1, 1, 2])
    plain, _ = loss_and_gradient(REJ, rows, [1.0] * 2)
    with_both, _ = loss_and_gradient(REJ, rows, [1.0] * 2, ref_gap=-0.1, entropies=[0.4, 0.6])
    assert with_both - plain == pytest.approx(0.001 * (2 * 0.00517092 - 1.0) / 4, rel=1e-5)


def test_which_groups_are_mixed_follows_the_checks_and_not_a_penalty():
    """The second right answer is long, so its shaped reward is lower; its group stays uniform."""
    part = "{use: overlong_penalty, settings: {max_tokens: 60, buffer_tokens: 20}}"
    method = shipped("reinforce_rej", f"plugins=[{part}]")
    made = [long("q/1", 1.0, 1), long("q/2", 1.0, 50)]
    batch = built(method, made)
    assert batch.shaped_rewards == [1.0, 0.5] and selected_in(batch) == []


def test_a_rollout_has_four_optimizer_steps_on_parts_of_four_problems():
    assert REJ.prompts_per_step == 16
    made = [long(f"p{n:02}/{i}", float(i), 1) for n in range(16) for i in (0, 1)]
    assert [len(one.rows) for one in built(REJ, made).minibatches] == [8, 8, 8, 8]


def test_the_map_to_1_and_minus_1_has_no_default():
    with pytest.raises(ConfigError, match="reward_map"):
        built(shipped("reinforce_rej", "layers.solve.advantage={type: raft}"), groups([1, 0]))
