"""The recipes that ship: each loads, and says what it is meant to say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cluster.allocations import placement_recipe
from mgrpo.config import RunConfig
from mgrpo.config.lengths import context_needed
from mgrpo.config.load import load_recipe, save_recipe, shipped_recipes
from mgrpo.sources import most_completions
from tests.repository import REPOSITORY

STUDY = (REPOSITORY / "benchmarks" / "study" / "recipes").glob("*.yaml")
RECIPES = [*shipped_recipes().values(), *sorted(STUDY)]


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_every_recipe_loads_and_survives_saving(path: Path, tmp_path: Path):
    config = load_recipe(path)
    assert config.name in (path.stem, path.parent.name, f"study-{path.stem}")
    save_recipe(config, tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == config


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_every_recipe_keeps_held_out_questions_apart(path: Path):
    data = load_recipe(path).data
    assert data.heldout is not None
    if data.train.source == "reasoning_gym":
        assert data.heldout in data.train.exclude_questions_of


def test_grpo_is_a_chain_of_one_with_the_budget_of_two_layers():
    grpo, mgrpo = load_recipe("grpo"), load_recipe("success_only")
    assert len(grpo.layers) == 1
    assert completions_per_prompt(grpo) == completions_per_prompt(mgrpo) == 40


def completions_per_prompt(config: RunConfig) -> int:
    return most_completions(config.method_view) // config.prompts_per_step


def test_where_errors_are_corrected_only_a_repaired_error_counts_as_a_success():
    correct, ours = load_recipe("strict_fix").layers[1], load_recipe("quickstart").layers[1]
    assert correct.success == "strict_fix"
    assert correct == ours.model_copy(update={"success": "strict_fix"})


def test_where_successes_alone_train_the_recipe_differs_from_the_defaults():
    config = load_recipe("success_only")
    correct = config.layers[1]
    assert (correct.parents.type, correct.group_size, correct.group_by) == ("all", 4, "parent")
    assert (correct.select, correct.denominator) == ("success_only_post_norm", "retained")
    assert (correct.success, correct.advantage.type) == ("final_correct", "group_z")
    assert (correct.layout.type, correct.layout.quote) == ("review_chat", "full")
    assert correct.guidance.draw.type == "per_correction"
    assert not correct.skip_truncated_parents
    assert config.objective.update_order.type == "sequential"
    assert {layer.aggregation.type for layer in config.layers} == {"seq_mean"}
    assert (config.evaluation.guidance, config.evaluation.decoding) == ("first", "greedy")


@pytest.mark.parametrize("name", ["raft", "raft_plus_plus", "reinforce_rej"])
def test_rejection_samplers_have_the_authors_kl_and_entropy_terms(name: str):
    config = load_recipe(f"methods/{name}")
    assert (config.objective.kl.weight, config.objective.kl.estimator) == (0.001, "k3")
    (bonus,) = [entry for entry in config.plugins if entry.use == "entropy_bonus"]
    assert bonus.settings == {"coefficient": 0.001}


@pytest.mark.parametrize(
    "name", ["methods/igrpo", f"{REPOSITORY}/benchmarks/study/recipes/igrpo.yaml"]
)
def test_igrpo_shows_its_best_draft_without_a_doubt(name: str):
    correct = load_recipe(name).layers[1]
    assert correct.parents.type == "best"
    assert correct.system_prompt == "Below is the best attempt so far. Improve on it."
    assert len(correct.guidance.phrases) == 1
    assert not re.search("wrong|slip|verify|overlook|[Cc]heck", correct.guidance.phrases[0])


def test_the_recipe_for_eight_gpus_fits_one_node_and_the_models_context():
    config = load_recipe("qwen2.5_math_7b")
    engines = placement_recipe(config).num_engines
    assert engines * config.engines.tensor_parallel_size + config.learner.num_ranks == 8
    assert config.learner.learning_rate == 5e-7
    assert [layer.group_size for layer in config.layers] == [8, 4]
    assert (config.prompts_per_step, config.objective.kl.weight) == (32, 0.001)
    longest = context_needed(
        config.layers, config.data.max_prompt_tokens, guidance_tokens=25, overhead_tokens=100
    )
    assert longest <= 4096
