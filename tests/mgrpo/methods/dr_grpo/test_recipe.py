"""Dr. GRPO: two keys of a layer."""

import pytest

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from mgrpo.config.load import load_recipe
from tests.learner.builders import attempts, solve_layer
from tests.learner.estimator_cases import groups
from tests.learner.exact import UNCORRECTED, exact_loss, floats


def test_dr_grpo_is_configuration_alone():
    config = load_recipe("methods/dr_grpo", ["objective.importance=none"])
    assert config.plugins == []
    layer = config.layers[0].model_copy(update={"max_completion_tokens": 4})
    batch = build_batch(attempts([1, 0, 0, 1]), [layer], config.objective)
    assert [row.advantages[0] for row in batch.rows] == [0.5, -0.5, -0.5, 0.5]
    two = build_batch(groups([1, 0], lengths=[2, 4]), [layer], config.objective).rows
    old = floats(*([-1.0] * 6))
    loss = exact_loss(two, old.clone(), old, objective=config.objective)
    assert float(loss) == pytest.approx(0.125)  # J is -0.125


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [("seq_mean", 0.0), ("token_mean", -1 / 6), ("fixed_length", -0.125)],
)
def test_two_rows_under_each_aggregation(aggregation, expected):
    """A = 0.5 with 2 tokens, A = -0.5 with 4, on policy."""
    advantage = {"scale_by_std": False}
    solve = solve_layer(aggregation=aggregation, max_completion_tokens=4, advantage=advantage)
    centred = ObjectiveConfig(**UNCORRECTED)
    rows = build_batch(groups([1, 0], lengths=[2, 4]), [solve], centred).rows
    old = floats(*([-1.0] * 6))
    for cuts in ([[0, 1]], [[0], [1]]):
        loss = exact_loss(rows, old.clone(), old, objective=centred, cuts=cuts)
        assert -float(loss) == pytest.approx(expected, abs=1e-12)
