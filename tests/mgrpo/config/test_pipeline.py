"""Which recipes can overlap sampling and learning, and what is said of the others."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mgrpo.config import RunConfig
from mgrpo.errors import ConfigError
from mgrpo.plugin import Plugin, load_plugins
from mgrpo.sources import is_on_policy


def refusal(tree: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        RunConfig.model_validate({**tree, **changes})
    return str(caught.value)


def test_layers_that_train_one_after_the_other_cannot_be_sampled_ahead(tree):
    said = refusal(
        tree, pipeline={"max_staleness_steps": 1}, objective={"update_order": "sequential"}
    )
    assert "pipeline.max_staleness_steps = 1" in said and "one layer trains at a time" in said


def test_dynamic_sampling_has_no_step_that_could_be_overlapped(tree):
    ahead = {"pipeline": {"max_staleness_steps": 1}, "source": "dynamic"}
    with pytest.raises(ConfigError, match="source dynamic samples before there is a step"):
        load_plugins(RunConfig.model_validate({**tree, **ahead}).method_view, Plugin)


def test_a_staleness_above_one_needs_weights_that_come_while_engines_sample(tree):
    said = refusal(tree, pipeline={"max_staleness_steps": 2})
    assert "pipeline.max_staleness_steps = 2" in said and "between_groups" in said


@pytest.mark.parametrize(
    ("key", "value"), [("new_weights", "in_flight"), ("min_done_fraction", 0.9)]
)
def test_what_would_do_nothing_is_refused(tree, key, value):
    said = refusal(tree, pipeline={"max_staleness_steps": 0, key: value})
    assert f"pipeline.{key} = {value}" in said and "nothing is sampled ahead" in said


@pytest.mark.parametrize("value", [-1, "always", 1.5])
def test_other_bounds_are_refused(tree, value):
    assert "max_staleness_steps" in refusal(tree, pipeline={"max_staleness_steps": value})


def test_steps_on_an_older_policys_completions_are_not_on_policy(tree):
    waits = RunConfig.model_validate(tree)
    ahead = RunConfig.model_validate({**tree, "pipeline": {"max_staleness_steps": 1}})
    assert is_on_policy(waits.method_view) and not is_on_policy(ahead.method_view)
