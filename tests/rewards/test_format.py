from dataclasses import replace

import pytest

from mgrpo.types import Problem
from rewards.format import format_answer

PROBLEM = Problem(problem_id="p", question="", answer="7")


@pytest.mark.parametrize(
    "completion",
    [
        "\\boxed{7}",
        "It is $\\boxed{7}$.",
        "\\[ \\boxed{\\frac{1}{2}} \\]\n",
        "**\\boxed{7}**",
        "\\(\\boxed{8}\\).",
        "\u7b54\u6848\u662f $\\boxed{5}$\u3002",
        "\\boxed{5}\uff01",
        "`\\boxed{5}`",
        "```\n\\boxed{5}\n```",
        "\\begin{align*}\n\\boxed{5}\n\\end{align*}",
        "\\boxed{5}" + "\n" * 14,
        "\u201cIt is \\boxed{5}.\u201d",
        "{\\boxed{5}}",
    ],
)
def test_one_box_at_the_end_has_the_form(completion):
    assert format_answer(completion, PROBLEM).value == 1.0


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("7", "no closed"),
        ("\\boxed{7", "no closed"),
        ("\\boxed{}", "no closed"),
        ("\\boxed{7} \\boxed{7}", "2 boxes"),
        ("\\boxed{\\boxed{7}}", "2 boxes"),
        ("\\boxed{7} because", "characters after"),
        ("\\boxed{7}" + "!" * 13, "characters after"),
        ("\\boxed{7}\n7", "characters after"),
        ("\\boxed{7} \\end{proof} QED", "characters after"),
        ("\\boxed{7}, or so.", "characters after"),
    ],
)
def test_what_breaks_the_form_is_named(completion, reason):
    reward = format_answer(completion, PROBLEM)
    assert (reward.value, reward.status) == (0.0, "scored")
    assert reason in reward.detail


def test_each_setting_relaxes_one_rule():
    assert format_answer("\\boxed{6} \\boxed{7}", PROBLEM, allow_several_boxes=True).value == 1.0
    assert format_answer("\\boxed{7} because", PROBLEM, allow_text_after_box=True).value == 1.0
    assert format_answer("\\boxed{7} because", PROBLEM, allow_several_boxes=True).value == 0.0


def test_thoughts_come_first_once_and_the_box_after_them():
    def value(text):
        return format_answer(text, PROBLEM, think_tags=True).value

    assert value("<think>3 and 4 ... \\boxed{7}?</think> \\boxed{7}") == 1.0
    assert value("\\boxed{7}") == 0.0
    assert value("<think>\\boxed{7}</think>") == 0.0
    assert value("<think>a</think><think>b</think>\\boxed{7}") == 0.0
    assert value("Well. <think>a</think>\\boxed{7}") == 0.0


OPENED_OR_NOT = [None, "<think>\n"]


@pytest.mark.parametrize("opening", OPENED_OR_NOT)
def test_a_thought_that_the_prompt_has_opened_only_has_to_end(opening):
    problem = replace(PROBLEM, prompt_opening=opening)

    def value(text):
        return format_answer(text, problem, think_tags=True).value

    assert value("3+4 is 7\n</think>\n\n\\boxed{7}") == 1.0
    assert value("</think>\\boxed{7}") == 1.0
    assert value("3+4 is 7 \\boxed{7}") == 0.0
    assert value("a</think>b</think>\\boxed{7}") == 0.0
    assert value("\\boxed{7}</think>") == 0.0


def test_a_thought_is_not_opened_twice():
    opened = replace(PROBLEM, prompt_opening="<think>\n")
    reward = format_answer("<think>a</think>\\boxed{7}", opened, think_tags=True)
    assert (reward.value, reward.detail) == (0.0, "does not open with one <think>...</think>")


def test_where_the_prompt_opens_nothing_the_policy_has_to():
    closed = replace(PROBLEM, prompt_opening="")
    assert format_answer("a</think>\\boxed{7}", closed, think_tags=True).value == 0.0
    assert format_answer("<think>a</think>\\boxed{7}", closed, think_tags=True).value == 1.0


def test_an_opening_changes_nothing_else():
    opened = replace(PROBLEM, prompt_opening="<think>\n\\boxed{5}")
    assert format_answer("\\boxed{7}", opened).value == 1.0
