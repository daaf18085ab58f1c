"""Recipes and overrides."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from mgrpo.config.load import PACKAGE, load_recipe, save_recipe
from mgrpo.config.yaml_core import parse_yaml
from tests.fuzz.target import Seed, Target

RECIPE = """\
name: small
steps: 3
prompts_per_step: 2
model: {path: default, dtype: float32}
data:
  train:
    - {path: sums.jsonl, name: sums, weight: 2}
    - {source: reasoning_gym, name: legs, weight: 1, size: 10, tasks: [{name: leg_counting}]}
  heldout: {format: verl, path: "data/*.parquet"}
layers:
  - {name: solve, group_size: 4, max_completion_tokens: 16, advantage: {type: group_z}}
  - {name: correct, group_size: 2, guidance: {draw: per_parent}, select: none}
objective: {loss: {type: gspo, clip_low: 3.0e-4}, kl: {weight: 0.001}, importance: none}
rewards: {terms: [{check: math_answer}, {http: "http://127.0.0.1:8000/score", weight: 0.5}]}
phases: [{name: late, from_step: 2, changes: {layers: {correct: {group_size: 3}}}}]
learner: {learning_rate: 1.0e-4, betas: [0.9, 0.99]}
engines: {extra_args: {max_logprobs: 3}}
alarms: {entropy_collapse: {action: stop}}
"""
OVERRIDES = (
    *("layers.correct.group_size=3", "layers.0.group_size=8", "steps=10", "name='7'"),
    *("data.train.0.path=other.jsonl", "objective.loss={type: gspo, clip_low: 1.0e-3}"),
    *("rewards.terms=[{check: math_answer}, {check: format, weight: 0.1}]", "data.heldout=null"),
    *("phases.0.changes.layers.correct.group_size=2", "learner.betas=[0.8, 0.9]"),
)


def recipes() -> list[Seed]:
    shipped = [PACKAGE / "methods" / name / "recipe.yaml" for name in ("veripo", "scrpo", "dapo")]
    texts = [RECIPE.encode(), *(file.read_bytes() for file in shipped)]
    return [Seed("recipe.yaml", text) for text in texts]


def read_recipe(folder: Path, given: Seed) -> None:
    file = folder / given.name
    file.write_bytes(given.data)
    config = load_recipe(file)
    save_recipe(config, folder / "saved.yaml")
    assert load_recipe(folder / "saved.yaml") == config, "a saved recipe is another one"


def overrides() -> list[Seed]:
    return [Seed("override", text.encode()) for text in OVERRIDES]


@cache
def small_recipe() -> dict[str, Any]:
    tree: dict[str, Any] = parse_yaml(RECIPE)
    return tree


def read_override(folder: Path, given: Seed) -> None:
    load_recipe(small_recipe(), [given.data.decode(errors="surrogateescape")])


TARGETS = (
    Target("recipes", recipes, read_recipe),
    Target("overrides", overrides, read_override),
)
