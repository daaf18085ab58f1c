"""Evaluation suites: benchmarks with their rows, their grader, how they are sampled, and what a
public model has scored, one file each in `mgrpo/recipes/suites/`.

A suite takes the place of the sections `data`, `rewards` and `evaluation` of a recipe; prompts,
lengths and engines stay those of the recipe.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt, ValidationError, model_validator

from mgrpo.config.base import StrictConfig, refuse
from mgrpo.config.explain import explain
from mgrpo.config.load import (
    PACKAGE,
    find_own_code,
    find_recipe,
    load_recipe,
    read_recipe,
)
from mgrpo.config.recipe_file import read_tree
from mgrpo.config.run import RunConfig
from mgrpo.errors import ConfigError, ConfigFault
from mgrpo.records.json_object import JsonObject


class PublishedScore(StrictConfig):
    """What a model scored elsewhere, so that one's own number can be set beside it."""

    model: str
    percent: float = Field(ge=0, le=100)
    of: str = "Acc@t1'"
    """Which number it is."""
    how: str
    """How it was measured, as far as the source says it."""
    source: str
    """An address or paper."""

    def __str__(self) -> str:
        return f"{self.model} {self.percent:g} % ({self.of}; {self.how}; {self.source})"


class Suite(StrictConfig):
    """A benchmark."""

    title: str
    num_problems: PositiveInt
    """As the source of the rows says."""
    rows: str
    """Where the columns are documented, and which version."""
    heldout: JsonObject | None = None
    """The source of the rows, as in `data.heldout`."""
    suites: list[str] = Field(default_factory=list)
    """In the place of `heldout`: other suites, each a domain of its own."""
    max_prompt_tokens: PositiveInt = 2048
    rewards: JsonObject = Field(default_factory=dict)
    """The section of a recipe; without it math_answer grades."""
    evaluation: JsonObject = Field(default_factory=dict)
    """The section of a recipe."""
    note: str = ""
    """What is not as in the papers that use it."""
    scores: list[PublishedScore] = Field(default_factory=list)

    @model_validator(mode="after")
    def check_rows(self) -> Suite:
        if (self.heldout is None) == (not self.suites):
            refuse("heldout", self.heldout, "a suite has either rows of its own or other suites.")
        return self

    def sections(self) -> JsonObject:
        """The sections of a recipe that it takes the place of."""
        if self.heldout is not None:
            source: Any = self.heldout
        else:
            source = [
                {**(load_suite(name).heldout or {}), "name": name, "domain_field": None}
                for name in self.suites
            ]
        data = {
            "train": source,
            "heldout": source,
            "max_prompt_tokens": self.max_prompt_tokens,
        }
        return {"data": data, "rewards": self.rewards, "evaluation": self.evaluation}


def suite_files() -> dict[str, Path]:
    """The shipped suites by name."""
    folder = PACKAGE / "recipes" / "suites"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def load_suite(name: str) -> Suite:
    """A shipped suite.

    Raises:
        ConfigError: there is none of this name.
    """
    files = suite_files()
    if name not in files:
        near = difflib.get_close_matches(name, files, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"Suites: {', '.join(files)}."
        raise ConfigError([ConfigFault("--suite", name, "no such suite.", hint)])
    try:
        return Suite.model_validate(read_tree(files[name]))
    except ValidationError as error:
        raise ConfigError(explain(error, Suite), source=str(files[name])) from error


def suite_recipe(suite: Suite, recipe: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A recipe with the suite's problems, grader and sampling, then with the overrides.

    Raises:
        ConfigError: lists all errors.
    """
    file = find_recipe(recipe)
    tree = {**read_recipe(file), **suite.sections()}
    find_own_code(tree, file.parent)
    return load_recipe(tree, overrides)
