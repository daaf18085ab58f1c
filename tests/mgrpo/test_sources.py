"""What a recipe's sources can stand beside, and what they say of its steps."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mgrpo.config import RunConfig
from mgrpo.config.explain import explain
from mgrpo.config.sources import stacked
from mgrpo.errors import ConfigError, ConfigFault
from mgrpo.plugin import Plugin, load_plugins
from mgrpo.sources import is_joint, is_on_policy, most_completions

THIRD = {"name": "again", "group_size": 2, "max_completion_tokens": 50}


def config_of(tree: dict[str, Any], source: Any, **sections: Any) -> RunConfig:
    return RunConfig.model_validate({**tree, "source": source, **sections})


def fault_of(config: RunConfig) -> ConfigFault:
    with pytest.raises(ConfigError) as error:
        load_plugins(config.method_view, Plugin)
    (fault,) = error.value.faults
    return fault


def test_sources_stand_one_above_another(tree):
    three = {"type": "correction_buffer", "above": {"type": "preferences", "above": "dynamic"}}
    config = config_of(tree, three)
    names = ["dynamic", "preferences", "correction_buffer"]
    assert [part.type for part in stacked(config.source)] == names
    assert stacked(config_of(tree, "fresh").source) == []


@pytest.mark.parametrize(
    ("source", "path", "hint"),
    [
        ("dynamik", "source", "Did you mean dynamic?"),
        ({"type": "correction_buffer", "above": "robust"}, "source.above", "data.sampler"),
        ({"type": "fresh", "max_rounds": 3}, "source.max_rounds", ""),
    ],
)
def test_an_unknown_source_is_told_which_there_are(tree, source, path: str, hint: str):
    with pytest.raises(ValidationError) as error:
        config_of(tree, source)
    (fault,) = explain(error.value, RunConfig)
    assert fault.path == path and hint in fault.suggestion


@pytest.mark.parametrize("name", ["dynamic", "error_pool"])
def test_what_draws_its_own_problems_stands_above_fresh_ones_only(tree, name: str):
    fault = fault_of(config_of(tree, {"type": name, "above": "correction_buffer"}))
    assert fault.path == "source.above" and f"above: {name}" in fault.suggestion
    above = {"type": "correction_buffer", "above": name}
    assert len(load_plugins(config_of(tree, above).method_view, Plugin)) == 2


@pytest.mark.parametrize("order", ["sequential", "alternate_steps"])
@pytest.mark.parametrize("name", ["dynamic", "error_pool"])
def test_what_says_which_layers_are_sampled_needs_joint_updates(tree, name: str, order: str):
    fault = fault_of(config_of(tree, name, objective={"update_order": order}))
    assert fault.path == "objective.update_order"
    assert fault.suggestion == "Use update_order: joint."


@pytest.mark.parametrize("num_layers", [1, 3])
def test_pooled_errors_need_one_layer_that_errs_and_one_that_corrects(tree, num_layers: int):
    layers = [*tree["layers"], THIRD][:num_layers]
    fault = fault_of(config_of(tree, "error_pool", layers=layers))
    assert fault.path == "layers" and "a chain of 2 layers" in fault.reason


def test_pooled_errors_are_never_best(tree):
    tree["layers"][1]["parents"] = {"type": "best", "all_fail": "skip_query"}
    fault = fault_of(config_of(tree, "error_pool"))
    assert fault.path == "layers.1.parents.all_fail"


def test_a_chain_of_one_has_no_corrections_to_keep(tree):
    fault = fault_of(config_of(tree, "correction_buffer", layers=tree["layers"][:1]))
    assert fault.path == "source"


def test_pairs_need_a_plug_in_that_trains_on_them(tree):
    assert "Add dpo to plugins" in fault_of(config_of(tree, "preferences")).suggestion
    pairs: dict[str, Any] = {"name": "pairs", "from_step": 1}
    pairs["changes"] = {"source": {"train_on": "pairs"}}
    config = config_of(tree, "preferences", plugins=[{"use": "dpo"}], phases=[pairs])
    assert len(load_plugins(config.method_view, Plugin)) == 2


@pytest.mark.parametrize(
    ("changes", "path", "reason"),
    [
        ({"pairs_per_step": 3}, "pairs_per_step", "made at the start"),
        ({"train_on": "pears"}, "train_on", "allowed"),
        ({"train": "pairs"}, "train", "no such key"),
    ],
)
def test_a_phase_changes_only_settings_that_are_read_in_each_step(tree, changes, path, reason):
    phase = {"name": "later", "from_step": 1, "changes": {"source": changes}}
    config = config_of(tree, "preferences", plugins=[{"use": "dpo"}], phases=[phase])
    fault = fault_of(config)
    assert fault.path == f"phases.0.changes.source.{path}" and reason in fault.reason


def test_a_step_of_pooled_errors_has_the_completions_of_one_layer(tree):
    assert most_completions(config_of(tree, "error_pool").method_view) == 8  # 2 x max(4, 2)
    fault = fault_of(config_of(tree, "error_pool", learner={"num_ranks": 9}))
    assert fault.path == "learner.num_ranks" and "only 8 completions" in fault.reason
    tree["layers"][1]["parents"] = "best"
    assert most_completions(config_of(tree, "fresh").method_view) == 2 * (4 + 2)


def test_steps_that_train_a_layer_apart_and_steps_off_policy_are_known(tree):
    names = ["fresh", "dynamic", "error_pool", "correction_buffer"]
    configs = [config_of(tree, name) for name in names]
    assert [is_joint(config.method_view) for config in configs] == [True, True, False, True]
    assert [is_on_policy(config.method_view) for config in configs] == [True, True, True, False]
    assert not is_on_policy(
        config_of(tree, "fresh", objective={"updates_per_rollout": 2}).method_view
    )
    assert not is_joint(
        config_of(tree, "fresh", objective={"update_order": "sequential"}).method_view
    )
