"""GRPO with an entropy bonus: the coefficient and the term of its page, by its recipe."""

import pytest

from learner.batch import TrainingBatch
from tests.learner.builders import long
from tests.learner.exact import floats
from tests.mgrpo.methods.shipped import built, loss_and_gradient, shipped

BONUS = shipped("entropy_bonus")
RIGHT = [long("q/1", 1.0, 1), long("q/2", 1.0, 3)]
"""Equal rewards: of the loss nothing but the bonus is left."""


def measured(*entropies: float) -> TrainingBatch:
    return built(BONUS, RIGHT, measurements={"entropies": floats(*entropies)})


@pytest.mark.parametrize(
    ("entropies", "coefficient"),
    [
        ([0.1, 0.1, 0.1, 0.1], 0.001 + 0.05 * 0.1),
        # The mean over tokens; over completions it would be 0.15.
        ([0.25, 0.05, 0.05, 0.05], 0.001 + 0.05 * 0.1),
        ([0.0, 0.0, 0.0, 0.0], 0.001 + 0.05 * 0.2),
        ([0.19, 0.21, 0.2, 0.2], 0.0),
        ([0.3, 0.3, 0.3, 0.3], 0.0),
    ],
)
def test_below_the_target_the_coefficient_grows_with_what_is_missing(
    entropies: list[float], coefficient: float
):
    assert measured(*entropies).metrics["entropy_bonus/coefficient"] == pytest.approx(
        (coefficient, 1.0), abs=1e-9
    )


def test_the_bonus_is_averaged_as_grpo_averages():
    """c = 0.006 of the entropies that began the step, H̄ = (0.8 + (0.1 + 0.2 + 0.3) / 3) / 2."""
    rows = measured(0.1, 0.1, 0.1, 0.1).rows
    loss, gradient = loss_and_gradient(BONUS, rows, [1.0] * 4, entropies=[0.8, 0.1, 0.2, 0.3])
    assert loss == pytest.approx(-0.006 * 0.5)
    assert gradient == [0.0] * 4  # but for the entropies


def test_uniform_groups_train_for_their_entropy_alone_and_only_below_the_target():
    assert len(measured(0.1, 0.1, 0.1, 0.1).rows) == 2
    assert measured(0.3, 0.3, 0.3, 0.3).rows == []


def test_rewards_that_differ_train_as_in_grpo():
    made = [long("q/1", 1.0, 1), long("q/2", 0.0, 1)]
    batch = built(BONUS, made, measurements={"entropies": floats(0.1, 0.1)})
    loss, _ = loss_and_gradient(BONUS, batch.rows, [1.1, 1.0], entropies=[0.1, 0.1])
    assert loss == pytest.approx(-0.1 * 0.707107 / 2 - 0.006 * 0.1, rel=1e-4)
