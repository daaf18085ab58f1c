from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mgrpo.types import Completion, Reward
from tests.actors.plugins.scripted_rollout import plugin, rollout, sampled

WHOLE = "Analysis: sign. Corrected solution: 7"


def marked(text: str, **settings: Any) -> Completion:
    parts = rollout(
        lambda prompt, index: text, [plugin("reflection_span", **settings)], group_sizes=(2,)
    )
    return sampled(parts)[0]


def test_the_analysis_runs_from_its_heading_to_the_solutions() -> None:
    one = marked(WHOLE)
    assert one.spans == {"analysis": [(0, 16)]}
    assert one.reward == Reward(value=1.0, correct=True)


def test_words_before_the_analysis_are_not_part_of_it() -> None:
    assert marked(f"Hm. {WHOLE}").spans == {"analysis": [(4, 20)]}


def test_without_an_opening_it_begins_with_the_completion() -> None:
    one = marked("3+4 \\boxed{7}", opening=None, closing="\\boxed", span="before")
    assert one.spans == {"before": [(0, 4)]}


@pytest.mark.parametrize("text", ["7", "Analysis: 7", "Corrected solution: 7", "so Analysis 7"])
def test_without_its_markers_a_right_answer_earns_nothing(text: str) -> None:
    one = marked(text)
    assert one.spans == {} and one.reward is not None
    assert (one.reward.value, one.reward.correct, one.reward.is_usable) == (0.0, False, True)
    assert "'Corrected solution:' is missing" in one.reward.detail


def test_or_keeps_its_reward_where_the_recipe_says_so() -> None:
    assert marked("7", missing_marker="keep").reward == Reward(value=1.0, correct=True)


def test_a_failed_check_stays_a_failed_check() -> None:
    part = plugin("reflection_span")
    parts = rollout(lambda prompt, index: "7", [])
    failed = Reward(value=0.0, status="timeout")
    one = replace(sampled(parts)[0], reward=failed)
    assert part.annotate(parts, one).reward == failed


def test_it_works_on_the_layers_it_was_given() -> None:
    parts = rollout(lambda prompt, index: "7", [plugin("reflection_span", 2)], group_sizes=(2, 2))
    completions = sampled(parts)
    assert {one.layer: one.is_correct for one in completions} == {1: True, 2: False}
