"""The recipes that ship: each loads, and says what it is meant to say."""

from __future__ import annotations

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
