"""REINFORCE, and what the losses beside the clipped one share."""

import pytest
from torch.testing import assert_close

from learner.plugin import LearnerPlugin
from mgrpo.errors import ConfigError
from mgrpo.plugin import load_plugins
from tests.learner.builders import plugin, run_config
from tests.learner.exact import exact_loss
from tests.learner.objective_cases import (
    CUT,
    faults,
    objective_and_gradient,
    one_row,
    two_groups,
)


def test_reinforce_has_no_ratio():
    value, gradient = objective_and_gradient(
        one_row(2.0, 1), [0.7], plugin("reinforce"), start=[-1.0]
    )
    assert value == pytest.approx(2.0 * -0.3)
    assert gradient == pytest.approx([2.0])


@pytest.mark.parametrize("use", ["reinforce", "gspo", "gmpo", "cispo"])
def test_in_the_first_update_all_have_the_gradient_of_grpo(use):
    rows, _, old = two_groups()
    gradients = []
    for plugins in ([], [plugin(use)]):
        leaf = old.clone().requires_grad_()
        exact_loss(rows, leaf, old, plugins=plugins, cuts=CUT).backward()
        gradients.append(leaf.grad)
    assert_close(*gradients, rtol=0, atol=1e-15)


@pytest.mark.parametrize("use", ["gspo", "gmpo"])
def test_ratios_of_completions_need_a_mean_over_completions(use):
    assert faults(use) == []
    assert faults(use, solve={"aggregation": "token_mean"}) == ["layers.0.aggregation"]
    assert faults("cispo", solve={"aggregation": "token_mean"}) == []


@pytest.mark.parametrize("use", ["cispo", "reinforce"])
def test_a_loss_without_a_clip_range_has_no_key_of_one(use):
    assert faults(use, clip_high=0.28) == ["objective.loss.clip_high"]


def test_a_loss_among_plug_ins_is_told_where_it_belongs():
    config = run_config(plugins=[{"use": "gspo"}])
    with pytest.raises(ConfigError, match=r"objective\.loss: \{type: gspo\}"):
        load_plugins(config.method_view, LearnerPlugin)
