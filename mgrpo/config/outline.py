"""What of a run's recipe pages and lists show, whatever version of mgrpo wrote it."""

from __future__ import annotations

import yaml
from pydantic import BaseModel, NonNegativeInt, ValidationError

from mgrpo.config.yaml_core import parse_yaml
from mgrpo.records.json_object import JsonObject


class Outline(BaseModel, extra="allow", strict=True):
    """Base of the sections that are read."""


class LayerOutline(Outline):
    name: str
    group_size: int


class ModelOutline(Outline):
    path: str = ""


class RecipeOutline(Outline):
    """Keys of any version, with the types that they have had in all."""

    name: str = ""
    description: str | None = None
    method: str | None = None
    paper: str | None = None
    steps: NonNegativeInt | None = None
    model: ModelOutline | None = None
    layers: list[LayerOutline] = []
    data: JsonObject | None = None
    learner: JsonObject | None = None
    objective: JsonObject | None = None


def read_outline(text: str) -> JsonObject:
    """The values of a recipe's text, as written; {} of an empty one.

    Raises:
        ValueError: it is no recipe of any version.
    """
    try:
        tree = parse_yaml(text) or {}
        RecipeOutline.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML: {' '.join(str(error).split())}") from error
    found: JsonObject = tree
    return found
