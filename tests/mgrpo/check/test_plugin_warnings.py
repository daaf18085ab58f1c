"""Settings that do nothing beside others, or the same thing twice, are named with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from mgrpo.check.plugin_warnings import plugin_warnings
from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.config.warnings import warnings_of
from mgrpo.methods.catalog import method_files

NO_STD = {"objective": {"advantage": {"scale_by_std": False}}}
TWO_UPDATES = {"objective": {"updates_per_rollout": 2}}
KL = {"objective": {"kl": {"weight": 0.1}}}
DYNAMIC = {"sampling": {"dynamic": {}}}
TWO_DOMAINS = {"domain_field": "domain"}


def entry(use: str, *layers: str, **settings: Any) -> dict[str, Any]:
    return {"use": use, "layers": list(layers) or None, "settings": settings}


def warned(tree: dict[str, Any], *entries: dict[str, Any], **sections: Any) -> list[str]:
    """Of a chain of one layer unless `layers` are given; the problems are of two domains."""
    train = {**tree["data"]["train"], **TWO_DOMAINS, **sections.pop("train", {})}
    data = {**tree["data"], "train": train, **sections.pop("data", {})}
    layers = sections.pop("layers", tree["layers"][:1])
    whole = {**tree, "data": data, "layers": layers, "plugins": list(entries), **sections}
    return plugin_warnings(RunConfig.model_validate(whole))


@pytest.mark.parametrize("name", list(method_files()))
def test_no_recipe_of_ours_has_an_inert_plug_in(name: str) -> None:
    config = load_recipe(f"methods/{name}")
    assert plugin_warnings(config) == []
    assert not [one for one in warnings_of(config) if "no effect" in one]


@pytest.mark.parametrize(
    ("entries", "sections", "expected"),
    [
        # double: two parts of a recipe that do the same
        (
            [entry("lead"), entry("overlong_penalty", max_tokens=50, buffer_tokens=9)],
            {},
            "0 (lead): overlong_penalty takes length off the reward too",
        ),
        ([entry("lead")], DYNAMIC, "sampling.dynamic has replaced those of layer 1"),
        ([entry("lead")], {"data": {"robust": {}}}, "hard problems up: they count twice"),
        ([entry("group_dro"), entry("lead")], NO_STD, "0 (group_dro): lead also gives more weight"),
        ([entry("agro", warmup_steps=0), entry("group_dro")], NO_STD, "group_dro also gives more"),
        ([entry("group_dro")], {**NO_STD, "data": {"robust": {}}}, "they count twice"),
        ([entry("group_dro")], {}, "scale_by_std: true gives rare outcomes large advantages"),
        ([entry("agro", warmup_steps=0)], {}, "hard prompts count twice. Set it to false"),
        ([entry("clip_cov"), entry("kl_cov")], TWO_UPDATES, "kl_cov holds back tokens"),
        ([entry("kl_in_reward")], KL, "objective.kl.weight penalises the distance"),
        ([entry("kl_in_reward"), entry("unbiased_kl")], {}, "unbiased_kl penalises the distance"),
        (
            [entry("kl_in_reward"), entry("reinforce_plus_plus", kl_weight=0.1)],
            {},
            "reinforce_plus_plus with kl_weight penalises the distance",
        ),
        ([entry("reinforce_plus_plus", kl_weight=0.1)], KL, "the same reference as kl_weight"),
        (
            [entry("entropy_advantage", detach=False), entry("entropy_bonus")],
            {},
            "a gradient on entropies into the loss, and so does entropy_bonus",
        ),
        (
            [entry("dagrpo"), entry("expert_anchor"), entry("supervised_injections")],
            {},
            "by a shaped probability: the two multiply",
        ),
        (
            [entry("expert_anchor"), entry("guided_error_correction"), entry("dagrpo")],
            {},
            "guided_error_correction repairs groups in which everything is wrong too",
        ),
        ([entry("desel"), entry("unlikeliness")], {}, "unlikeliness ranks a group's completions"),
        ([entry("lambda_grpo"), entry("lambda_grpo")], {}, "1 (lambda_grpo): is plugins.0 too"),
        # inert beside the rest of the recipe
        ([entry("gspo")], {}, "is GRPO with objective.updates_per_rollout: 1"),
        ([entry("gmpo")], {}, "is GRPO with objective.updates_per_rollout: 1"),
        ([entry("cispo")], {}, "has the gradient of the clipped objective"),
        ([entry("disco")], {}, "its penalty on leaving the policy that sampled has no effect"),
        (
            [entry("dagrpo", clip_high=0.3)],
            {},
            "settings.clip_high has no effect with objective.up",
        ),
        ([entry("dagrpo", gamma=0.2)], {}, "settings.gamma has no effect where no plug-in puts"),
        ([entry("gpg"), entry("reinforce")], DYNAMIC, "settings.scale has nothing to give back"),
        ([entry("rloo"), entry("reinforce")], TWO_UPDATES, "1 (reinforce): nothing corrects for"),
        ([entry("rloo")], NO_STD, "objective.advantage.scale_by_std: False has no effect"),
        ([entry("group_dro")], {**NO_STD, "train": {"domain_field": None}}, "of one domain"),
        ([entry("agro", warmup_steps=5)], NO_STD, "advantages stay as they are to the end"),
        ([entry("overlong_penalty", max_tokens=55, buffer_tokens=9)], {}, "penalty is never due"),
        ([entry("supervised_injections")], {}, "no plug-in of the recipe puts text in"),
        (
            [entry("guided_error_correction"), entry("supervised_injections")],
            {},
            "offpolicy: mask_injected, so what it puts in carries no loss",
        ),
        ([entry("greedy_anchor"), entry("desel")], {}, "reads greedy answers, which cost"),
        ([entry("problem_entities")], {}, "no plug-in of the recipe reads entities"),
        ([entry("reflection_span")], {}, "no plug-in of the recipe credits its span"),
        ([entry("step_spans")], {}, "no plug-in of the recipe reads steps"),
        # inert beside its own settings
        ([entry("agro", warmup_steps=0, num_groups=1)], NO_STD, "num_groups: 1 leaves advantages"),
        ([entry("agro", warmup_steps=0, rate=2)], NO_STD, "rate has no effect with variant: worst"),
        (
            [entry("agro", warmup_steps=0, variant="exponential", floor=0.2)],
            NO_STD,
            "settings.floor has no effect with variant: exponential",
        ),
        ([entry("group_dro", share=0.3)], NO_STD, "share has no effect with variant: exponential"),
        ([entry("group_dro", rate=0)], NO_STD, "settings.rate: 0 never moves the weights"),
        ([entry("group_dro", variant="worst_share", rate=1)], NO_STD, "rate has no effect with"),
        ([entry("dagrpo", threshold=0)], {}, "compares all completions: this is GRPO"),
        ([entry("desel", ratio=0)], {}, "settings.ratio: 0 keeps everything"),
        (
            [entry("disco", divergence_weight=0, divergence_bound=0.1)],
            TWO_UPDATES,
            "divergence_bou",
        ),
        ([entry("problem_entities"), entry("entity_reward", strength=0)], {}, "whatever they name"),
        ([entry("entropy_advantage", pad_entropy=1)], {}, "pad_entropy has no effect with mask"),
        (
            [entry("entropy_bonus", max_coefficient=0.2)],
            {},
            "max_coefficient has no effect without",
        ),
        ([entry("lead", length_strength=0, min_len_gate=9)], {}, "min_len_gate has no effect with"),
        (
            [entry("lead", weight_floor=1, weight_ceiling=1, weight_middle=0.5)],
            {},
            "weight_middle has no effect with weight_floor equal to weight_ceiling",
        ),
        ([entry("mismatch_correction", lowest=0.1)], {}, "lowest has no effect with method: trunc"),
        (
            [entry("mismatch_correction", method="none", reject_k3=0.1, cap=3)],
            {},
            "settings.cap has no effect with method: none",
        ),
        (
            [entry("overlong_penalty", max_tokens=50, buffer_tokens=9, penalty=0)],
            {},
            "takes nothing",
        ),
        ([entry("rloo", epsilon=1)], {}, "settings.epsilon has no effect without normalise"),
        ([entry("span_credit", attribution="all_tokens")], {}, "all_tokens turns it off"),
        ([entry("top_entropy_tokens", share=1)], {}, "share: 1 takes all tokens"),
        ([entry("unlikeliness", strength=0)], {}, "settings.strength: 0 leaves rewards as they"),
        ([entry("unlikeliness")], DYNAMIC, "sampling.dynamic has replaced those of layer 1"),
        ([entry("guided_error_correction", intervene_rate=0)], {}, "repairs nothing"),
        ([entry("guided_error_correction", full_reward=2)], {}, "full_reward has no effect with"),
        (
            [
                entry(
                    "guided_error_correction", probs=[0.5, 0.5, 0], missing_solution="inject_answer"
                )
            ],
            {},
            "settings.missing_solution has no effect",
        ),
        (
            [entry("expert_anchor", answer_sentence="So {answer}."), entry("dagrpo")],
            {},
            "settings.answer_sentence has no effect with missing_solution: leave",
        ),
    ],
)
def test_what_does_nothing_or_is_done_twice_is_said(tree, entries, sections, expected) -> None:
    found = [one for one in warned(tree, *entries, **sections) if expected in one]
    assert len(found) == 1
    assert found[0].startswith("plugins.") and found[0].endswith(".")


RAW = {"name": "solve", "group_size": 4, "max_completion_tokens": 50, "advantage": "raw_reward"}


@pytest.mark.parametrize(
    ("settings", "others", "expected"),
    [
        ({"variant": "raft_plus_plus"}, [entry("lead")], "so what lead does to them is a weight"),
        ({"variant": "raft_plus_plus"}, [], "raft_plus_plus is raft with objective.updates_per"),
        ({"variant": "reinforce_rej", "reward_map": "zero_one"}, [], "wrong answers no weight"),
    ],
)
def test_raft_takes_rewards_literally(tree, settings, others, expected: str) -> None:
    raft = entry("raft", **{"reward_map": "plus_minus_one", **settings})
    assert any(expected in one for one in warned(tree, raft, *others, layers=[RAW]))


def test_an_estimator_takes_the_place_of_the_layers_advantage(tree) -> None:
    layers = [tree["layers"][0], {**tree["layers"][1], "advantage": "improvement"}]
    (found,) = warned(tree, entry("rloo"), layers=layers)
    assert found.endswith("layers.1.advantage: improvement has no effect.")
    assert warned(tree, entry("rloo", "solve"), layers=layers) == []


def test_a_plug_in_of_layers_that_do_not_train_has_no_effect(tree) -> None:
    layers = [{**tree["layers"][0], "loss_weight": 0}, tree["layers"][1]]
    (found,) = warned(tree, entry("lambda_grpo", "solve"), layers=layers)
    assert found == (
        "plugins.0 (lambda_grpo): works only on solve with loss_weight 0: it has no effect."
    )
    later = {"name": "later", "from_step": 1, "changes": {"layers": {"solve": {"loss_weight": 1}}}}
    assert warned(tree, entry("lambda_grpo", "solve"), layers=layers, phases=[later]) == []


def test_a_bonus_for_corrections_that_are_normalised_or_not_there(tree) -> None:
    layers = tree["layers"]
    assert "takes most of alpha away" in warned(tree, entry("correction_bonus"), layers=layers)[0]
    assert warned(tree, entry("correction_bonus"), layers=layers, **NO_STD) == []
    (found,) = warned(tree, entry("correction_bonus", "solve"), layers=layers, **NO_STD)
    assert "bonus_to: turn2 pays corrections: it has no effect" in found
    (found,) = warned(tree, entry("correction_bonus", alpha=0), layers=layers, **NO_STD)
    assert found.endswith("settings.alpha: 0 pays nothing.")


@pytest.mark.parametrize("use", ["clip_cov", "kl_cov"])
def test_a_share_of_hardly_any_tokens_is_said_with_how_many(tree, use: str) -> None:
    """2 prompts x 4 completions x 50 tokens: 400 at most."""
    (found,) = warned(tree, entry(use), **TWO_UPDATES)
    assert "settings.share: 0.0002 of a step's tokens, 400 at most, is 1" in found
    assert "From 0.025 on" in found
    assert warned(tree, entry(use, share=0.025), **TWO_UPDATES) == []
    (found,) = warned(tree, entry(use, share=0.0249), **TWO_UPDATES)
    assert "is 9" in found


def test_steps_with_advantages_of_their_own_replace_what_came_before(tree) -> None:
    steps = entry("prefix_preference", scorer="none", credit="process", aggregate="sum")
    found = warned(tree, entry("step_spans"), entry("clip_cov", share=0.1), steps, entry("rloo"))
    assert [one.partition(": ")[2][:40] for one in found] == [
        "settings.aggregate has no effect with cr",
        "with credit: process each step has an ad",
        "with credit: process each step has an ad",
    ]
    assert "in place of rloo's" in found[1] and "clip_cov stands before it" in found[2]
    plain = entry("prefix_preference", scorer="none", epsilon=1)
    (found_plain,) = warned(tree, entry("step_spans"), plain)
    assert "settings.epsilon has no effect with credit: trajectory" in found_plain


def test_a_step_that_is_refilled_in_part_still_has_uniform_groups(tree) -> None:
    part = {"sampling": {"dynamic": {"min_mixed_fraction": 0.6}}}
    assert warned(tree, entry("lead"), **part) == []
    assert warned(tree, entry("gpg"), entry("reinforce"), **part) == []


def test_a_users_plug_in_may_read_and_write_anything(tree) -> None:
    own = entry("tests.mgrpo.test_plugin:Both")
    for one in ("greedy_anchor", "problem_entities", "reflection_span", "step_spans"):
        assert warned(tree, entry(one), own) == []
    assert warned(tree, entry("supervised_injections"), own) == []


def test_an_entry_that_cannot_be_loaded_is_left_to_those_who_refuse_it(tree) -> None:
    assert warned(tree, entry("no_such"), entry("lead", no_such_key=1)) == []


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"objective": {"clip_high": 0.3}}, "objective.clip_high has no effect with objective.upd"),
        ({"objective": {"kl": {"estimator": "k2"}}}, "every KL weight is 0"),
        ({"objective": {"kl": {"estimator": "k1", "weight": 1}}}, "an expected gradient of 0"),
        ({"objective": {"importance": {"mode": "off", "cap": 3}}}, "objective.importance.cap has"),
        ({"objective": {"error_pool": {"capacity": 3}}}, "objective.error_pool has no effect"),
        (
            {"layers": [RAW], "objective": {"advantage": {"ddof": 0}}},
            "objective.advantage.ddof has no effect: no layer has advantage: group_z",
        ),
    ],
)
def test_keys_of_the_objective_that_do_nothing(tree, sections, expected: str) -> None:
    config = RunConfig.model_validate({**tree, **sections})
    assert len([one for one in warnings_of(config) if expected in one]) == 1


def test_a_sampler_over_domains_needs_more_than_one(tree) -> None:
    tree["data"]["robust"] = {}
    text = "data.robust has no effect: all problems of data.train are of one domain."
    assert text in warnings_of(RunConfig.model_validate(tree))
    tree["data"]["train"] = {**tree["data"]["train"], **TWO_DOMAINS}
    assert text not in warnings_of(RunConfig.model_validate(tree))
