"""A count of engines is a number or a range."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mgrpo.config import RunConfig
from mgrpo.config.engines import EngineRange
from mgrpo.config.load import load_recipe


def with_engines(value: Any) -> RunConfig:
    tree = load_recipe("quickstart").model_dump()
    tree["layers"][0]["num_engines"] = value
    return RunConfig.model_validate(tree)


def test_a_number_is_a_range_that_cannot_move_and_is_written_as_a_number() -> None:
    count = with_engines(3).layers[0].num_engines
    assert (count.min, count.max, count.is_elastic) == (3, 3, False)
    assert with_engines(3).model_dump()["layers"][0]["num_engines"] == 3


def test_a_range_is_read_and_written_as_min_and_max() -> None:
    config = with_engines({"min": 1, "max": 4})
    assert config.layers[0].num_engines.is_elastic
    again = RunConfig.model_validate(config.model_dump())
    assert again.layers[0].num_engines == EngineRange(min=1, max=4)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "greater than or equal to 1|greater than 0"),
        ({"min": 3, "max": 2}, "must not be below min, which is 3"),
        ({"min": 1}, "max"),
        (True, "num_engines"),
    ],
)
def test_impossible_counts_are_refused(value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        with_engines(value)
