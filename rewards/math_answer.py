"""The check `math_answer`: is the last \\boxed{} of a completion the reference answer?

1. Both are brought to one spelling (`answer_text`).
2. Both are read as a form: number, list, relation, choice, words, ... (`answer_forms`).
3. The forms are compared (`answer_equality`); formulas by their value (`expression_value`).

A numeric reference wants a result, not arithmetic: \\boxed{3 + 4} copies the question "What
is 3 + 4?" and is not accepted for 7. The same holds for \\boxed{14/2}. The other way round, a
reference that is arithmetic, 40*(94 - 90) + 83, wants an arrangement of those numbers and not its
value. `allow_unevaluated: true` compares values in both. Nothing that a policy writes is ever
evaluated as code, and every step is bounded. The rules are on docs/guides/answers.md.

Problems of reasoning-gym's tasks whose answer is no number go to the task's own verifier (see
`task_answer`): most of them have more right answers than the one in the data.
"""

from __future__ import annotations

import re
from typing import Literal

from mgrpo.types import Problem, Reward
from rewards.answer_equality import Percent, Rules, is_same
from rewards.answer_forms import Form, Scalar, Sequence, read
from rewards.answer_text import clean, key, tidy
from rewards.boxed import is_blank, last_box
from rewards.task_answer import task_answer, task_of

MAX_ANSWER_CHARS = 1000  # a longer one is not worth reading
SHOWN_CHARS = 80
NO_NUMBER = re.compile(r"[+-]?(?:nan|inf)", re.IGNORECASE)

SPOKEN_MIXED = re.compile(r"(-?\d+) ?(?:and|\\text\{ ?and ?\}) ?(\d+/\d+|\\frac\{\d+\}\{\d+\})")

Compare = Literal["auto", "text", "math"]


def math_answer(
    completion: str,
    problem: Problem,
    *,
    compare: Compare = "auto",
    allow_unevaluated: bool = False,
    percent: Percent = "either",
    ignore_units: bool = False,
    relative_tolerance: float = 0.0,
) -> Reward:
    """1 for the reference answer in the last \\boxed{}, else 0; without a box, unparsable.

    Args:
        completion: what the policy wrote.
        problem: its `answer` is the reference, with or without a \\boxed{} of its own. One that
            is empty, NaN or infinite is nobody's answer.
        compare: "text" never does mathematics (ignores case and spacing), "math" also does
            it for words, as products of letters; "auto" decides by the reference.
        allow_unevaluated: accept arithmetic that is still to be done, and the value of a
            reference that is arithmetic.
        percent: 50\\% is 0.5 ("value"), 50 ("number"), or "either".
        ignore_units: 18 m is 18 cm. Otherwise a unit that is written must be the reference's,
            if that has one; it may always be left out. Units are never converted.
        relative_tolerance: how far a number may be from the reference, as a share of it. 0
            wants it exactly: 0.333 is not 1/3.
    """
    if task_of(problem) is not None:
        return task_answer(completion, problem)
    box = last_box(completion)
    if box is None:
        return Reward(value=0.0, status="unparsable", detail="no closed \\boxed{} with an answer")
    if len(box.content.strip()) > MAX_ANSWER_CHARS:
        detail = f"the boxed answer has {len(box.content)} characters, read are {MAX_ANSWER_CHARS}"
        return Reward(value=0.0, status="unparsable", detail=detail)
    rules = Rules(
        allow_unevaluated=allow_unevaluated,
        percent=percent,
        ignore_units=ignore_units,
        relative_tolerance=relative_tolerance,
        words=compare == "math",
    )
    reference = reference_of(problem)
    correct = is_right(reference, box.content, rules, compare)
    sign = "=" if correct else "is not"
    return Reward(
        value=float(correct),
        correct=correct,
        extracted_answer=box.content.strip(),
        detail=f"{shown(box.content)} {sign} {shown(reference)}",
    )


def reference_of(problem: Problem) -> str:
    """The reference answer; the inside of its last box where it has one."""
    box = last_box(problem.answer)
    return problem.answer if box is None else box.content


def is_right(reference: str, answer: str, rules: Rules, compare: Compare) -> bool:
    """Is this the reference answer? A reference without content is never right."""
    wanted, found = clean(reference), clean(answer)
    if is_blank(wanted) or NO_NUMBER.fullmatch(tidy(wanted)):
        return False
    if compare == "text":
        return key(tidy(found)) == key(tidy(wanted))
    target = read(wanted, words=rules.words)
    return any(is_same(target, form, rules) for form in readings(found, target, rules))


def readings(answer: str, target: Form, rules: Rules) -> list[Form]:
    """How an answer may be read: 100,200 is one number, or two where two are wanted.

    3 and 1/2 are two numbers, or one where one is wanted.
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
