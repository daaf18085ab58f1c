"""Metrics that decide something must be metrics of the run."""

from __future__ import annotations

import pytest

from mgrpo.check.watched import watched_lines
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigError


def lines(*overrides: str):
    return list(watched_lines(load_recipe("quickstart", overrides)))


@pytest.mark.parametrize(
    "metric", ["heldout/layer2/accuracy", "layer1/accuracy", "learner/grad_norm"]
)
def test_metrics_of_the_catalogue_pass(metric):
    assert lines(f"early_stopping={{metric: {metric}}}") == []


def test_a_misspelt_metric_is_a_failure_with_the_name_that_it_may_mean():
    (line,) = lines("checkpoints.keep_best={metric: layer1/acuracy}")
    assert line.status == "fail"
    assert "checkpoints.keep_best.metric: no run has layer1/acuracy" in line.detail
    assert "Did you mean layer1/accuracy" in line.detail


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["early_stopping={metric: heldout/layer3/accuracy}"], "the chain has 2 layers"),
        (["early_stopping={metric: heldout/delta}"], "only heldout/layerN/accuracy"),
        (
            ["checkpoints.keep_best={metric: heldout/layer1/accuracy}", "evaluation.every_steps=0"],
            "is not measured during the run",
        ),
        (["early_stopping={patience: 3}"], "early_stopping.metric"),
    ],
)
def test_a_recipe_whose_metric_is_not_measured_is_refused(overrides, said):
    with pytest.raises(ConfigError, match=said):
        load_recipe("quickstart", overrides)
