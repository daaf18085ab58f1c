"""RAFT++: the example of its page, by its recipe."""

import pytest

from tests.learner.builders import attempts, long
from tests.mgrpo.methods.shipped import (
    advantages_of,
    built,
    loss_and_gradient,
    selected_in,
    shipped,
)

RAFT = shipped("raft_plus_plus")


@pytest.mark.parametrize(
    ("rewards", "expected"), [([1, 0, 0, 1], [1, 0, 0, 1]), ([1, 1], [1, 1]), ([0, 0], [0, 0])]
)
def test_right_answers_train_with_advantage_1_and_no_others(
    rewards: list[float], expected: list[float]
):
    batch = built(RAFT, attempts(rewards))
    assert list(advantages_of(batch).values()) == expected
    right = [f"q/{n}" for n, reward in enumerate(rewards, start=1) if reward == 1]
    assert selected_in(batch) == right == [row.completion_id for row in batch.rows]


def test_beside_raft_there_is_a_ratio_with_an_upper_bound():
    """Ratios 1.1, 1.3 and 0.7 of a right answer: J is 1.1, 1.2 and 0.7, and the second token has
    no gradient. T counts the wrong answer's two tokens."""
    made = [long("q/1", 1.0, 3), long("q/2", 0.0, 2)]
    loss, gradient = loss_and_gradient(RAFT, built(RAFT, made).rows, [1.1, 1.3, 0.7])
    assert loss == pytest.approx(-(1.1 + 1.2 + 0.7) / 5)
    assert gradient == pytest.approx([-1.1 / 5, 0, -0.7 / 5])


def test_what_trains_has_the_authors_kl_and_entropy_terms():
    """0.001 each: k3 at d = 0.1, and entropies 0.4, 0.5 and 0.6 of the right answer."""
    made = [long("q/1", 1.0, 3), long("q/2", 0.0, 2)]
    rows = built(RAFT, made).rows
    plain, _ = loss_and_gradient(RAFT, rows, [1.0] * 3)
    with_both, _ = loss_and_gradient(RAFT, rows, [1.0] * 3, ref_gap=-0.1, entropies=[0.4, 0.5, 0.6])
    expected = 0.001 * (3 * 0.00517092 - 1.5) / 5
    assert with_both - plain == pytest.approx(expected, rel=1e-5)


def test_a_rollout_has_four_optimizer_steps_on_parts_of_four_problems():
    assert RAFT.prompts_per_step == 16
    made = [long(f"p{problem:02}/1", 1.0, 1) for problem in range(16)]
    steps = built(RAFT, made).minibatches
    assert [len(one.rows) for one in steps] == [4, 4, 4, 4]
    assert steps[0].rows[0].token_weights.tolist() == pytest.approx([1 / 4])
