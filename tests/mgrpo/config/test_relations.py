from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mgrpo.check.recipe_warnings import warnings_of
from mgrpo.config import RunConfig
from mgrpo.config.explain import explain
from mgrpo.errors import ConfigFault
from mgrpo.sources import most_completions, most_completions_per_minibatch


def fault_of(tree: dict[str, Any]) -> ConfigFault:
    with pytest.raises(ValidationError) as error:
        RunConfig.model_validate(tree)
    (fault,) = explain(error.value, RunConfig)
    return fault


def warned(tree: dict[str, Any]) -> str:
    return "\n".join(warnings_of(RunConfig.model_validate(tree)))


@pytest.mark.parametrize("key", ["quote", "max_quote_tokens", "system_prompt"])
def test_self_continue_leaves_nothing_of_the_attempt_out(tree, key: str):
    values = {"quote": "answer_only", "max_quote_tokens": 20, "system_prompt": "Check."}
    layer = tree["layers"][1]
    layer["layout"] = {"type": "self_continue"}
    if key == "system_prompt":
        layer[key] = values[key]
        assert "self_continue" in fault_of(tree).reason
        return
    layer["layout"][key] = values[key]
    assert fault_of(tree).path == f"layers.1.layout.{key}"
    assert fault_of(tree).suggestion == "It belongs to type: review_chat or user_quote."


@pytest.mark.parametrize("parents", ["all", "wrong_only"])
def test_how_many_parents_cannot_be_said_where_every_one_is_taken(tree, parents: str):
    tree["layers"][1]["parents"] = {"type": parents, "k": 2}
    fault = fault_of(tree)
    assert fault.path == "layers.1.parents.k"
    assert fault.suggestion == "It belongs to type: wrong_first or uniform_k or best or rejected."


def test_no_more_parents_than_the_layer_before_has_completions(tree):
    tree["layers"][1]["parents"] = {"type": "uniform_k", "k": 5}
    assert fault_of(tree).suggestion == "Nearest valid value: 4."
    tree["layers"][1]["parents"]["k"] = 4
    RunConfig.model_validate(tree)


def test_a_third_layer_may_take_parents_from_the_whole_tree_of_a_problem(tree):
    third = {"name": "again", "group_size": 2, "parents": {"type": "uniform_k", "k": 8}}
    tree["layers"].append({**third, "max_completion_tokens": 50})
    RunConfig.model_validate(tree)  # 4 attempts x 2 corrections
    tree["layers"][2]["parents"] = {"type": "uniform_k", "k": 9}
    assert fault_of(tree).suggestion == "Nearest valid value: 8."


def test_what_a_layer_passes_on_is_counted_from_the_parents_it_takes(tree):
    tree["layers"][1]["parents"] = {"type": "best", "k": 3}  # 3 parents x 2 corrections
    third = {"name": "again", "group_size": 2, "parents": {"type": "best", "k": 7}}
    tree["layers"].append({**third, "max_completion_tokens": 50})
    assert fault_of(tree).suggestion == "Nearest valid value: 6."


def test_a_microbatch_holds_at_least_the_longest_sequence(tree):
    tree["learner"] = {"microbatch_tokens": 409}  # 300 + 50 + 60 = 410
    fault = fault_of(tree)
    assert fault.path == "learner.microbatch_tokens"
    assert "Nearest valid value: 410" in fault.suggestion
    tree["learner"]["microbatch_tokens"] = 410
    RunConfig.model_validate(tree)


@pytest.mark.parametrize(
    ("key", "value"), [("parents", "wrong_only"), ("select", "none"), ("group_by", "query")]
)
def test_keys_of_corrections_have_no_place_in_the_first_layer(tree, key: str, value: str):
    tree["layers"][0][key] = value
    fault = fault_of(tree)
    assert fault.path == f"layers.0.{key}"
    assert fault.suggestion == "It belongs to kind: correct or verify."


def test_layers_have_different_names(tree):
    tree["layers"][1]["name"] = "solve"
    assert fault_of(tree).path == "layers.1.name"


def test_something_must_be_trained(tree):
    for layer in tree["layers"]:
        layer["loss_weight"] = 0
    assert "nothing would be trained" in fault_of(tree).reason


def test_no_more_ranks_than_completions(tree):
    tree["learner"] = {"num_ranks": 25}  # 2 prompts x (4 + 4 x 2) = 24
    assert fault_of(tree).suggestion == "Nearest valid value: 24."


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
    text = warned(tree)
    for key in (
        "evaluation.temperature",
        "engines.num_shared_engines",
        "learner.warmup_steps",
        "data.heldout",
    ):
        assert key in text


def test_a_plain_recipe_has_one_warning_at_most(tree):
    assert warned(tree).startswith("data.heldout is not set")
    assert "\n" not in warned(tree)


# --- combinations that make no sense ---


@pytest.mark.parametrize("depth", [0, 1])
def test_a_group_of_one_has_nothing_to_be_compared_with(tree, depth: int):
    tree["layers"][depth]["group_size"] = 1
    fault = fault_of(tree)
    assert fault.path == f"layers.{depth}.group_size"
    assert "must be 2 or more" in fault.reason and "one is not enough" in fault.suggestion


@pytest.mark.parametrize("changes", [{"group_by": "query"}, {"loss_weight": 0}])
def test_one_correction_may_be_compared_with_those_of_other_attempts_or_not_train(tree, changes):
    tree["layers"][1] |= {"group_size": 1, **changes}
    assert RunConfig.model_validate(tree).layers[1].group_size == 1
    tree["layers"][0] |= {"group_size": 1}
    assert fault_of(tree).path == "layers.0.group_size"


def test_the_first_layer_has_nothing_to_improve_on(tree):
    tree["layers"][0]["advantage"] = "improvement"
    fault = fault_of(tree)
    assert fault.path == "layers.0.advantage"
    assert fault.suggestion.startswith("Allowed: group_z,")
    tree["layers"][0]["advantage"] = "group_z"
    tree["layers"][1]["advantage"] = "improvement"
    RunConfig.model_validate(tree)


@pytest.mark.parametrize(("key", "value"), [("tie_break", "first"), ("all_fail", "skip_query")])
def test_ties_and_failures_of_the_best_matter_only_where_the_best_is_taken(
    tree, key: str, value: str
):
    tree["layers"][1]["parents"] = {"type": "all", key: value}
    fault = fault_of(tree)
    assert fault.path == f"layers.1.parents.{key}"
    assert fault.suggestion == "It belongs to type: best."
    tree["layers"][1]["parents"]["type"] = "best"
    RunConfig.model_validate(tree)


@pytest.mark.parametrize("order", ["joint", "alternate_steps"])
def test_only_sequential_updates_leave_a_fresher_policy_to_sample_from(tree, order: str):
    tree["objective"] = {"update_order": {"type": order, "rollout_policy": "refreshed"}}
    fault = fault_of(tree)
    assert fault.path == "objective.update_order.rollout_policy"
    assert fault.suggestion == "It belongs to type: sequential."
    tree["objective"]["update_order"]["type"] = "sequential"
    RunConfig.model_validate(tree)


def test_steps_cannot_alternate_between_one_layer(tree):
    del tree["layers"][1]
    tree["objective"] = {"update_order": "alternate_steps"}
    assert "at least 2 layers" in fault_of(tree).reason


def test_four_attempts_with_three_corrections_each_are_sixteen(tree):
    tree["layers"][1]["group_size"] = 3
    assert most_completions(RunConfig.model_validate(tree).method_view) == 2 * 16


def test_no_more_minibatches_than_problems(tree):
    tree["objective"] = {"minibatches": tree["prompts_per_step"]}
    RunConfig.model_validate(tree)
    tree["objective"]["minibatches"] += 1
    fault = fault_of(tree)
    assert fault.path == "objective.minibatches"
    assert fault.suggestion == (f"Nearest valid value: {tree['prompts_per_step']}.")


def test_a_phase_may_not_have_more_of_them_either(tree):
    too_many = {"objective": {"minibatches": tree["prompts_per_step"] + 1}}
    tree["phases"] = [{"name": "later", "from_step": 1, "changes": too_many}]
    assert fault_of(tree).path.endswith("objective.minibatches")


def test_ranks_are_busy_in_every_minibatch(tree):
    tree["objective"] = {"minibatches": tree["prompts_per_step"]}
    config = RunConfig.model_validate(tree)
    most = most_completions_per_minibatch(config.method_view)
    assert most == most_completions(config.method_view) / config.prompts_per_step
    tree["learner"] = {"num_ranks": most + 1}
    assert f"an optimizer step has only {most} completions" in fault_of(tree).reason


def test_a_clip_range_has_an_effect_with_minibatches(tree):
    tree["objective"] = {"loss": {"clip_high": 0.3}}
    assert "objective.loss.clip_high has no effect" in warned(tree)
    tree["objective"]["minibatches"] = 2
    assert "clip_high" not in warned(tree)


def test_functions_of_groups_are_called_for_parts_where_groups_are_sampled_in_parts(tree):
    batch = {"batch": "./my.py:rank", "correct_at": 1.0}
    tree["rewards"] = {"terms": [batch, {"check": "format"}]}
    assert "in parts" not in warned(tree)
    tree["layers"][1]["guidance"] = {"draw": "per_correction"}
    warning = warned(tree)
    assert (
        "layers.1.guidance.draw: per_correction: groups are sampled and scored in parts" in warning
    )
    assert "./my.py:rank" in warning and "format" not in warning


# --- rewards of sources ---


@pytest.mark.parametrize(
    ("terms", "heldout", "complaint"),
    [
        ([{"check": "math_answer", "sources": ["easy", "hard"]}], None, None),
        (
            [{"check": "math_answer", "sources": ["easy"]}, {"check": "format"}],
            {"path": "other.jsonl"},
            None,
        ),
        (
            [{"check": "math_answer", "sources": ["eazy"]}],
            None,
            "rewards.terms.0.sources = eazy: no data source has this name. Names: easy, hard.",
        ),
        (
            [
                {"check": "math_answer", "sources": ["easy"]},
                {"check": "format", "correct_at": None},
            ],
            None,
            "rewards.terms = hard: has no reward term that says what is right.",
        ),
        (
            [{"check": "math_answer", "sources": ["easy", "hard"]}],
            {"path": "other.jsonl"},
            "rewards.terms = the problems of a single source, which has no name,",
        ),
    ],
)
def test_each_source_has_a_term_that_says_what_is_right(tree, terms, heldout, complaint):
    train = [{"name": name, "path": f"{name}.jsonl"} for name in ("easy", "hard")]
    tree["data"] |= {"train": train, "heldout": heldout}
    tree["rewards"] = {"terms": terms}
    if complaint is None:
        RunConfig.model_validate(tree)
        return
    with pytest.raises(ValidationError) as caught:
        RunConfig.model_validate(tree)
    assert complaint in str(caught.value)


def prompts_of(tree, terms) -> list[str | None]:
    tree["rewards"] = {"terms": terms}
    return [layer.system_prompt for layer in RunConfig.model_validate(tree).layers]


def test_default_prompts_suit_what_the_checks_read(tree):
    for layer in tree["layers"]:
        layer.pop("system_prompt", None)
    number = len(tree["layers"])
    assert prompts_of(tree, [{"check": "math_answer"}]) == [None] * number
    assert prompts_of(tree, [{"check": "./my.py:near"}, {"check": "format"}]) == [None] * number
    for terms, words in (
        ([{"check": "./my.py:near"}], "an attempt at a task"),
        ([{"check": "code_answer"}], "a block of code"),
        ([{"http": "http://127.0.0.1:1/score", "correct_at": 1.0}], "an attempt at a task"),
    ):
        found = prompts_of(tree, terms)
        assert None not in found and (found[0] == "") == (words == "an attempt at a task")
    tree["layers"][0]["system_prompt"] = "Mine."
    assert prompts_of(tree, [{"check": "code_answer"}])[0] == "Mine."


def test_one_default_prompt_for_boxes_and_programs_is_pointed_out(tree):
    for layer in tree["layers"]:
        layer.pop("system_prompt", None)
    tree["rewards"] = {"terms": [{"check": "math_answer"}, {"check": "code_answer"}]}
    assert "layers.0.system_prompt is not set" in warned(tree)
    for layer in tree["layers"]:
        layer["system_prompt"] = ""
    assert "system_prompt" not in warned(tree)


SOLVE = {"name": "solve", "group_size": 4, "max_completion_tokens": 20}
VERIFY = {**SOLVE, "name": "verify", "kind": "verify"}
REVISE = {**SOLVE, "name": "revise", "layout": "self_continue", "parents": "rejected"}


def test_a_layer_behind_verdicts_reads_both_verdict_and_attempt(tree):
    tree["layers"] = [SOLVE, VERIFY, REVISE]
    config = RunConfig.model_validate(tree)
    assert [one.kind for one in config.layers] == ["solve", "verify", "correct"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"layout": "review_chat"}, "layout"),
        ({"parents": "wrong_only"}, "parents"),
        ({"guidance": {"from": "check"}}, "guidance"),
        ({"kind": "verify", "parents": "all"}, "kind"),
    ],
)
def test_what_takes_a_verdict_for_an_attempt_is_refused(tree, change: dict[str, Any], key: str):
    tree["layers"] = [SOLVE, VERIFY, {**REVISE, **change}]
    fault = fault_of(tree)
    assert fault.path == f"layers.2.{key}" and "gives verdicts" in fault.reason


def test_there_are_no_rejected_attempts_without_verdicts(tree):
    tree["layers"] = [SOLVE, {**REVISE, "layout": "review_chat"}]
    assert fault_of(tree).path == "layers.1.parents"


def test_a_verdict_may_not_read_what_the_check_says(tree):
    tree["layers"] = [SOLVE, {**VERIFY, "guidance": {"from": "check"}}]
    assert fault_of(tree).path.startswith("layers.1.guidance")
