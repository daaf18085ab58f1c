from __future__ import annotations

from typing import Any

from mgrpo.types import Completion
from tests.actors.plugins.scripted_rollout import plugin, rollout, sampled


def spans_of(text: str, **settings: Any) -> dict[str, list[tuple[int, int]]]:
    one: Completion = sampled(
        rollout(lambda prompt, index: text, [plugin("step_spans", **settings)], group_sizes=(2,))
    )[0]
    return one.spans


def test_each_line_is_a_step_and_the_end_of_turn_belongs_to_the_last() -> None:
    assert spans_of("3\n+4\n7") == {"steps": [(0, 2), (2, 5), (5, 7)]}


def test_sentences_and_numbered_lines_under_a_name_of_ones_own() -> None:
    assert spans_of("One. Two.", split="sentence", span="parts") == {"parts": [(0, 4), (4, 10)]}
    assert spans_of("1. a\n2. b", split="numbered") == {"steps": [(0, 5), (5, 10)]}


def test_a_text_without_boundaries_is_one_step() -> None:
    assert spans_of("7") == {"steps": [(0, 2)]}


def test_a_repair_is_cut_into_steps_as_it_stands_afterwards() -> None:
    """Repairs come before marks, whatever the recipe's order."""
    repair = plugin(
        "guided_error_correction", probs=(0, 1, 0), interjection="No.", answer_sentence="{answer}"
    )
    parts = rollout(lambda prompt, index: "8", [plugin("step_spans"), repair], group_sizes=(2,))
    one = sampled(parts)[0]
    assert one.text == "8\nNo. 7"
    assert one.spans == {"steps": [(0, 2), (2, 8)]}
