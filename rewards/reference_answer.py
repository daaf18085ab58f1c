"""Compares the last \\boxed{} of a completion with its problem's reference answer, by value."""

from __future__ import annotations

import re
from typing import Literal

from mgrpo.types import Problem, Reward
from rewards.answer_equality import Rules, is_same
from rewards.answer_forms import Form, Scalar, Sequence, read
from rewards.answer_text import clean, key, tidy
from rewards.boxed import is_blank, last_box

MAX_ANSWER_CHARS = 1000  # a longer one is not worth reading
SHOWN_CHARS = 80
NO_BOX = "There is no answer in a closed \\boxed{}."
TOO_LONG = "The answer in the box is too long."
RIGHT = "The answer is right."
WRONG = "The answer is not the expected one."
NO_NUMBER = re.compile(r"[+-]?(?:nan|inf)", re.IGNORECASE)

SPOKEN_MIXED = re.compile(r"(-?\d+) ?(?:and|\\text\{ ?and ?\}) ?(\d+/\d+|\\frac\{\d+\}\{\d+\})")

Compare = Literal["auto", "text", "math"]


def reference_answer(
    completion: str, problem: Problem, rules: Rules, compare: Compare = "auto"
) -> Reward:
    """1 for the reference answer in the last \\boxed{}, else 0; without a box, unparsable.

    Its detail names the reference, its feedback never does.

    Args:
        rules: the equality rules.
        compare: see `rewards.math_answer.math_answer`.
    """
    box = last_box(completion)
    if box is None:
        return unparsable("no closed \\boxed{} with an answer", NO_BOX)
    if len(box.content.strip()) > MAX_ANSWER_CHARS:
        detail = (
            f"the boxed answer has {len(box.content)} characters, the limit is {MAX_ANSWER_CHARS}"
        )
        return unparsable(detail, TOO_LONG)
    reference = reference_of(problem)
    correct = is_right(reference, box.content, rules, compare)
    sign = "=" if correct else "is not"
    return Reward(
        value=float(correct),
        correct=correct,
        extracted_answer=box.content.strip(),
        detail=f"{shown(box.content)} {sign} {shown(reference)}",
        feedback=RIGHT if correct else WRONG,
    )


def unparsable(detail: str, feedback: str) -> Reward:
    """The reward of a completion without a readable answer."""
    return Reward(value=0.0, status="unparsable", detail=detail, feedback=feedback)


def reference_of(problem: Problem) -> str:
    """The reference answer; the content of its last box if it has one."""
    box = last_box(problem.answer)
    return problem.answer if box is None else box.content


def is_right(reference: str, answer: str, rules: Rules, compare: Compare) -> bool:
    """Whether this is the reference answer. An empty reference matches nothing."""
    wanted, found = clean(reference), clean(answer)
    if is_blank(wanted) or NO_NUMBER.fullmatch(tidy(wanted)):
        return False
    if compare == "text":
        return key(tidy(found)) == key(tidy(wanted))
    target = read(wanted, words=rules.words)
    return any(is_same(target, form, rules) for form in readings(found, target, rules))


def readings(answer: str, target: Form, rules: Rules) -> list[Form]:
    """The readings of an answer: 100,200 is one number, or two if the reference has two.

    3 and 1/2 are two numbers, or one if the reference has one.
    """
    form = read(answer, words=rules.words)
    if isinstance(target, Scalar) and (mixed := SPOKEN_MIXED.fullmatch(answer)) is not None:
        return [form, read(f"{mixed[1]} {mixed[2]}")]
    if isinstance(target, Sequence) and isinstance(form, Scalar) and "," in answer:
        return [form, read(answer, words=rules.words, thousands=False)]
    return [form]


def shown(answer: str) -> str:
    """An answer short enough for a log line."""
    answer = answer.strip()
    return answer if len(answer) <= SHOWN_CHARS else answer[:SHOWN_CHARS] + "..."
