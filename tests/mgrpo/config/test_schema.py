"""The JSON schema for editors accepts what the loader accepts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mgrpo.config.load import load_recipe, save_recipe, shipped_recipes
from mgrpo.config.schema import recipe_schema
from mgrpo.config.yaml_core import parse_yaml
from tests.repository import REPOSITORY

RECIPES = {
    **shipped_recipes(),
    **{file.stem: file for file in (REPOSITORY / "examples").glob("*/*.yaml")},
}


@pytest.fixture(scope="module")
def validator() -> Any:
    return jsonschema.Draft202012Validator(recipe_schema())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fits(name: str, validator) -> None:
    validator.validate(parse_yaml(RECIPES[name].read_text()))


def test_a_resolved_recipe_fits(validator, tmp_path: Path) -> None:
    save_recipe(load_recipe("quickstart"), tmp_path / "config.yaml")
    validator.validate(parse_yaml((tmp_path / "config.yaml").read_text()))


@pytest.mark.parametrize(
    "tree",
    [
        {"extends": "quickstart", "stepz": 3},
        {"extends": "quickstart", "learner": {"lr": 1.0e-5}},
        {"extends": "quickstart", "steps": 0},
        {"name": "alone"},
    ],
)
def test_what_is_wrong_does_not_fit(tree: dict[str, Any], validator) -> None:
    assert not validator.is_valid(tree)


@pytest.mark.parametrize("key", ["from", "type"])
def test_guidance_may_be_written_by_either_key(key: str, validator) -> None:
    guided = {"name": "correct", "kind": "correct", "group_size": 2, "guidance": {key: "check"}}
    validator.validate({"extends": "quickstart", "layers": [guided]})


def test_a_layer_may_be_changed_by_its_name(validator) -> None:
    validator.validate({"extends": "quickstart", "layers": {"correct": {"group_size": 8}}})
    validator.validate({"extends": "quickstart", "layers": [{"name": "a", "stop": ["Q:"]}]})
