"""Settings that do nothing beside others, or the same thing twice, are named with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mgrpo.check.plugin_warnings import plugin_warnings
from mgrpo.check.recipe_warnings import warnings_of
from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.methods.catalog import method_files
from mgrpo.plugin import find_plugin

TWO_DOMAINS = {"domain_field": "domain"}


def entry(use: str, *layers: str, **settings: Any) -> dict[str, Any]:
    return {"use": use, "layers": list(layers) or None, "settings": settings}


def warned(tree: dict[str, Any], *entries: dict[str, Any], **sections: Any) -> list[str]:
    """Of a chain of one layer unless `layers` are given; the problems are of two domains."""
    train = {**tree["data"]["train"], **TWO_DOMAINS, **sections.pop("train", {})}
    data = {**tree["data"], "train": train, **sections.pop("data", {})}
    layers = sections.pop("layers", tree["layers"][:1])
    whole = {**tree, "data": data, "layers": layers, "plugins": list(entries), **sections}
    return plugin_warnings(RunConfig.model_validate(whole).method_view)


@pytest.mark.parametrize("name", list(method_files()))
def test_no_recipe_of_ours_has_an_inert_plug_in(name: str) -> None:
    config = load_recipe(f"methods/{name}")
    assert plugin_warnings(config.method_view) == []
    assert not [one for one in warnings_of(config) if "no effect" in one]


OVERLONG = entry("overlong_penalty", max_tokens=50, buffer_tokens=9)
SHAPED = {"objective": {"loss": "shaped_probability"}}


@pytest.mark.parametrize(
    ("entries", "sections", "expected"),
    [
        # two parts of a recipe that do the same
        ([entry("lead"), OVERLONG], {}, "overlong_penalty takes length off the reward too"),
        ([entry("group_dro"), entry("lead")], {}, "(group_dro): lead also increases the weight"),
        ([entry("agro"), entry("group_dro")], {}, "(agro): group_dro also increases"),
        ([entry("kl_in_reward"), entry("unbiased_kl")], {}, "unbiased_kl penalises the distance"),
        (
            [entry("clip_cov", share=0.1)],
            {"objective": {"updates_per_rollout": 2, "loss": {"type": "kl_cov", "share": 0.1}}},
            "kl_cov holds back tokens",
        ),
        (
            [entry("expert_anchor"), entry("supervised_injections")],
            SHAPED,
            "by a shaped probability: the two multiply",
        ),
        (
            [entry("expert_anchor"), entry("guided_error_correction")],
            SHAPED,
            "guided_error_correction repairs groups in which everything is wrong too",
        ),
        ([entry("desel"), entry("unlikeliness")], {}, "unlikeliness ranks a group's completions"),
        ([entry("lambda_grpo"), entry("lambda_grpo")], {}, "(lambda_grpo): is plugins.0 too"),
        # what one part makes, nothing reads
        ([entry("greedy_anchor")], {}, "no part of the recipe reads its output. Add desel."),
        ([entry("problem_entities")], {}, "Add entity_reward."),
        ([entry("reflection_span")], {}, "Add span_credit."),
        ([entry("step_spans")], {}, "Add prefix_preference or span_credit."),
        ([entry("integrated_answers")], {}, "Add gcpo."),
    ],
)
def test_what_does_nothing_or_is_done_twice_is_said(tree, entries, sections, expected) -> None:
    found = [one for one in warned(tree, *entries, **sections) if expected in one]
    assert len(found) == 1
    assert found[0].startswith("plugins.") and found[0].endswith(".")


@pytest.mark.parametrize(
    ("loss", "updates", "expected"),
    [
        ("gspo", 1, "where every ratio is 1, is GRPO."),
        ("gmpo", 1, "where every ratio is 1, is GRPO."),
        ("cispo", 1, "where every ratio is 1, has the gradient of the clipped objective, GRPO's."),
        ("reinforce", 2, "nothing corrects for what the policy has moved since it sampled"),
    ],
)
def test_a_loss_is_told_what_it_is_with_so_many_updates(tree, loss, updates, expected) -> None:
    objective = {"loss": loss, "updates_per_rollout": updates}
    (found,) = warned(tree, objective=objective)
    assert found.startswith(f"objective.loss ({loss}): ") and expected in found
    assert warned(tree, objective={**objective, "updates_per_rollout": 3 - updates}) == []


@pytest.mark.parametrize(
    ("use", "settings", "reason"),
    [
        ("agro", {"rate": 2}, "rate = 2.0: has no effect without variant: exponential"),
        ("agro", {"variant": "exponential", "floor": 0.2}, "without variant: worst_share"),
        ("group_dro", {"share": 0.3}, "share = 0.3: has no effect without variant: worst_share"),
        ("group_dro", {"variant": "worst_share", "rate": 1}, "without variant: exponential"),
        ("entropy_advantage", {"pad_entropy": 1}, "has no effect without mask: False"),
        ("guided_error_correction", {"full_reward": 2}, "without trigger: reward_below_full"),
        ("expert_anchor", {"answer_sentence": "So {answer}."}, "without missing_solution: answer"),
        ("prefix_preference", {"scorer": "none", "epsilon": 1}, "without credit: process"),
        (
            "prefix_preference",
            {"scorer": "none", "credit": "process", "aggregate": "sum"},
            "without credit: trajectory",
        ),
    ],
)
def test_a_key_that_others_leave_without_effect_cannot_be_written(use, settings, reason) -> None:
    with pytest.raises(ValidationError, match=reason):
        find_plugin(use).Settings.model_validate(settings)


def test_a_plug_in_of_layers_that_do_not_train_has_no_effect(tree) -> None:
    layers = [{**tree["layers"][0], "loss_weight": 0}, tree["layers"][1]]
    (found,) = warned(tree, entry("lambda_grpo", "solve"), layers=layers)
    assert found == (
        "plugins.0 (lambda_grpo): works only on solve with loss_weight 0: it has no effect."
    )
    later = {"name": "later", "from_step": 1, "changes": {"layers": {"solve": {"loss_weight": 1}}}}
    assert warned(tree, entry("lambda_grpo", "solve"), layers=layers, phases=[later]) == []


def test_a_bonus_for_corrections_that_are_normalised(tree) -> None:
    layers = tree["layers"]
    assert "takes most of alpha away" in warned(tree, entry("correction_bonus"), layers=layers)[0]
    layers[1]["advantage"] = {"scale_by_std": False}
    assert warned(tree, entry("correction_bonus"), layers=layers) == []


def test_a_share_of_hardly_any_tokens_is_said_with_how_many(tree) -> None:
    """2 prompts x 4 completions x 50 tokens: 400 at most."""
    (found,) = warned(tree, entry("clip_cov"))
    assert "share: 0.0002 of 400 tokens, at most, is 1" in found
    assert "From 0.025 on" in found
    assert warned(tree, entry("clip_cov", share=0.025)) == []
    (found,) = warned(tree, entry("clip_cov", share=0.0249))
    assert "is 9" in found
    objective = {"loss": "kl_cov", "updates_per_rollout": 2}
    assert "share: 0.0002 of 400 tokens" in warned(tree, objective=objective)[0]


def test_a_users_plug_in_may_read_and_write_anything(tree) -> None:
    own = entry("tests.mgrpo.test_plugin:Both")
    for one in ("greedy_anchor", "problem_entities", "reflection_span", "step_spans"):
        assert warned(tree, entry(one), own) == []


def test_an_entry_that_cannot_be_loaded_is_left_to_those_who_refuse_it(tree) -> None:
    assert warned(tree, entry("no_such"), entry("lead", no_such_key=1)) == []


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            {"objective": {"loss": {"clip_high": 0.3}}},
            "objective.loss.clip_high has no effect with one optimizer step",
        ),
        ({"objective": {"kl": {"estimator": "k2"}}}, "every KL weight is 0"),
        ({"objective": {"kl": {"estimator": "k1", "weight": 1}}}, "an expected gradient of 0"),
    ],
)
def test_keys_of_the_objective_that_do_nothing(tree, sections, expected: str) -> None:
    config = RunConfig.model_validate({**tree, **sections})
    assert len([one for one in warnings_of(config) if expected in one]) == 1


def test_a_sampler_over_domains_needs_more_than_one(tree) -> None:
    tree["data"]["sampler"] = "robust"
    text = "data.sampler (robust): has no effect: all problems of data.train are of one domain."
    assert text in plugin_warnings(RunConfig.model_validate(tree).method_view)
    tree["data"]["train"] = {**tree["data"]["train"], **TWO_DOMAINS}
    assert text not in plugin_warnings(RunConfig.model_validate(tree).method_view)
