"""Prompt 100, completions of 50 and 60, guidance 7, overhead 20: worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from mgrpo.config import RunConfig
from mgrpo.config.lengths import context_needed, layer_lengths


def lengths(tree: dict[str, Any], **correct: Any) -> list[int]:
    tree["layers"][1].update(correct)
    return layer_lengths(RunConfig.model_validate(tree).layers, 100, 7, 20)


def test_a_correction_holds_prompt_overhead_attempt_guidance_and_itself(tree):
    assert lengths(tree) == [150, 237]  # 100 + 50; 100 + 20 + 50 + 7 + 60


def test_a_bounded_quote_needs_less(tree):
    assert lengths(tree, layout={"max_quote_tokens": 10}) == [150, 197]  # 100 + 20 + 10 + 7 + 60


def test_a_quote_is_never_longer_than_the_attempt(tree):
    assert lengths(tree, layout={"max_quote_tokens": 500}) == [150, 237]


def test_self_continue_goes_on_from_the_whole_attempt(tree):
    assert lengths(tree, layout="self_continue") == [150, 217]  # 150 + 7 + 60, no overhead


def test_self_continue_accumulates_over_three_layers(tree):
    third = {"name": "again", "group_size": 2, "max_completion_tokens": 30}
    tree["layers"].append({**third, "layout": "self_continue"})
    assert lengths(tree, layout="self_continue") == [150, 217, 254]  # 217 + 7 + 30


def test_a_third_review_quotes_only_the_layer_before(tree):
    tree["layers"].append({"name": "again", "group_size": 2, "max_completion_tokens": 30})
    assert lengths(tree)[2] == 217  # 100 + 20 + 60 + 7 + 30


@pytest.mark.parametrize(("first", "expected"), [(50, 237), (500, 687)])
def test_the_context_is_that_of_the_longest_layer(tree, first: int, expected: int):
    tree["layers"][0]["max_completion_tokens"] = first
    assert context_needed(RunConfig.model_validate(tree).layers, 100, 7, 20) == expected


def test_with_a_short_correction_the_first_layer_can_be_the_longest(tree):
    tree["layers"][0]["max_completion_tokens"] = 500
    tree["layers"][1].update(layout={"max_quote_tokens": 10}, max_completion_tokens=5)
    assert context_needed(RunConfig.model_validate(tree).layers, 100, 7, 20) == 600
