from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mgrpo.config import RunConfig
from mgrpo.config.explain import explain
from mgrpo.config.relations import warnings_of
from mgrpo.errors import ConfigProblem


def problem_of(tree: dict[str, Any]) -> ConfigProblem:
    with pytest.raises(ValidationError) as error:
        RunConfig.model_validate(tree)
    (problem,) = explain(error.value, RunConfig)
    return problem


def warned(tree: dict[str, Any]) -> str:
    return "\n".join(warnings_of(RunConfig.model_validate(tree)))


@pytest.mark.parametrize("key", ["quote", "max_quote_tokens", "system_prompt"])
def test_self_continue_leaves_nothing_of_the_attempt_out(tree, key: str):
    values = {"quote": "answer_only", "max_quote_tokens": 20, "system_prompt": "Check."}
    tree["layers"][1].update({"layout": "self_continue", key: values[key]})
    problem = problem_of(tree)
    assert problem.path == f"layers.1.{key}"
    assert "self_continue" in problem.reason


@pytest.mark.parametrize("parents", ["all", "wrong_only"])
def test_parents_k_has_no_effect_where_every_parent_is_taken(tree, parents: str):
    tree["layers"][1].update(parents=parents, parents_k=2)
    problem = problem_of(tree)
    assert problem.path == "layers.1.parents_k"
    assert f"has no effect with parents: {parents}" in problem.reason


def test_no_more_parents_than_the_layer_before_has_completions(tree):
    tree["layers"][1].update(parents="uniform_k", parents_k=5)
    assert problem_of(tree).suggestion == "Nearest valid value: 4."
    tree["layers"][1]["parents_k"] = 4
    RunConfig.model_validate(tree)


def test_a_third_layer_may_take_parents_from_the_whole_tree_of_a_problem(tree):
    third = {"name": "again", "group_size": 2, "parents": "uniform_k", "parents_k": 8}
    tree["layers"].append({**third, "max_completion_tokens": 50})
    RunConfig.model_validate(tree)  # 4 attempts x 2 corrections
    tree["layers"][2]["parents_k"] = 9
    assert problem_of(tree).suggestion == "Nearest valid value: 8."


def test_what_a_layer_passes_on_is_counted_from_the_parents_it_takes(tree):
    tree["layers"][1].update(parents="best", parents_k=3)  # 3 parents x 2 corrections
    third = {"name": "again", "group_size": 2, "parents": "best", "parents_k": 7}
    tree["layers"].append({**third, "max_completion_tokens": 50})
    assert problem_of(tree).suggestion == "Nearest valid value: 6."


def test_a_microbatch_holds_at_least_the_longest_sequence(tree):
    tree["learner"] = {"microbatch_tokens": 409}  # 300 + 50 + 60 = 410
    problem = problem_of(tree)
    assert problem.path == "learner.microbatch_tokens"
    assert "Nearest valid value: 410" in problem.suggestion
    tree["learner"]["microbatch_tokens"] = 410
    RunConfig.model_validate(tree)


@pytest.mark.parametrize(
    ("key", "value"), [("parents", "wrong_only"), ("select", "none"), ("group_by", "query")]
)
def test_keys_of_corrections_have_no_place_in_the_first_layer(tree, key: str, value: str):
    tree["layers"][0][key] = value
    problem = problem_of(tree)
    assert problem.path == f"layers.0.{key}"
    assert "first layer" in problem.reason


def test_layers_have_different_names(tree):
    tree["layers"][1]["name"] = "solve"
    assert problem_of(tree).path == "layers.1.name"


def test_something_must_be_trained(tree):
    for layer in tree["layers"]:
        layer["loss_weight"] = 0
    assert "nothing would be trained" in problem_of(tree).reason


def test_no_more_ranks_than_completions(tree):
    tree["learner"] = {"num_ranks": 25}  # 2 prompts x (4 + 4 x 2) = 24
    assert problem_of(tree).suggestion == "Nearest valid value: 24."


def test_grouping_over_the_batch_is_fine(tree):
    tree["layers"][1]["group_by"] = "batch"
    assert "group_by" not in warned(tree)


def test_normalising_after_filtering_to_successes_is_warned_of(tree):
    tree["layers"][1]["select"] = "success_only_pre_norm"
    assert "every advantage is 0" in warned(tree)
    tree["layers"][1]["advantage"] = "const_positive"
    assert "every advantage is 0" not in warned(tree)


def test_keys_without_effect_are_warned_of(tree):
    tree["evaluation"] = {"temperature": 0.7}
    tree["engines"] = {"num_shared_engines": 2}
    tree["learner"] = {"warmup_steps": 2}
    tree["layers"][1]["guidance"] = {"fixed_index": 3}
    text = warned(tree)
    for key in (
        "evaluation.temperature",
        "engines.num_shared_engines",
        "learner.warmup_steps",
        "layers.1.guidance.fixed_index",
        "data.heldout",
    ):
        assert key in text


def test_a_plain_recipe_has_one_warning_at_most(tree):
    assert warned(tree).startswith("data.heldout is not set")
    assert "\n" not in warned(tree)
