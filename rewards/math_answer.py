"""The check `math_answer`: is the last \\boxed{} of a completion the reference answer?

1. Equal text after tidying is right.
2. Two plain numbers are compared exactly, without computer algebra.
3. References that are words, times or rows of numbers are compared as text only.
4. Everything else goes to math-verify.

A numeric reference wants a result, not arithmetic: \\boxed{3 + 4} copies the question "What
is 3 + 4?" and is not accepted for 7, although math-verify finds the two equal. The same
holds for \\boxed{14/2}. `allow_unevaluated: true` accepts both.

Problems of reasoning-gym's tasks whose answer is no number go to the task's own verifier (see
`task_answer`): most of them have more right answers than the one in the data.
"""

from __future__ import annotations

import re
from typing import Literal

from mgrpo.types import Problem, Reward
from rewards.answer_text import is_division, key, kind_of, plain_number, tidy
from rewards.boxed import last_box
from rewards.task_answer import task_answer, task_of

MAX_ANSWER_CHARS = 1000  # longer ones are not worth a computer algebra system's time
SHOWN_CHARS = 80

Compare = Literal["auto", "text", "math"]

UNEVALUATED = re.compile(
    r"[+*!]|(?<=[\w)}\s])-|\\(?:times|cdot|div|sqrt|binom|sum|prod|int|log|ln|sin|cos|tan|exp)\b"
    r"|[\d)}]\s*\^(?!\s*\{?\s*\\circ)|[\d)]\s*\(|\d\s+\d(?!\s*/)"
)
WORDS = re.compile(r"(?<![\\a-zA-Z])[^\W\d_]{2,}")  # units, but no LaTeX command


def math_answer(
    completion: str,
    problem: Problem,
    *,
    compare: Compare = "auto",
    allow_unevaluated: bool = False,
) -> Reward:
    """1 for the reference answer in the last \\boxed{}, else 0; without a box, unparsable.

    Args:
        completion: what the policy wrote.
        problem: its `answer` is the reference, with or without a \\boxed{} of its own.
        compare: "text" never does mathematics (ignores case and spacing), "math" also does
            it for words; "auto" decides by the reference (see `answer_text.kind_of`).
        allow_unevaluated: accept arithmetic that is still to be done for a plain number.
    """
    if task_of(problem) is not None:
        return task_answer(completion, problem)
    box = last_box(completion)
    if box is None or not box.content.strip():
        return Reward(value=0.0, status="unparsable", detail="no closed \\boxed{} with an answer")
    answer = tidy(box.content)
    if len(answer) > MAX_ANSWER_CHARS:
        detail = f"the boxed answer has {len(answer)} characters, read are {MAX_ANSWER_CHARS}"
        return Reward(value=0.0, status="unparsable", detail=detail)
    reference = tidy(reference_of(problem))
    correct, why = judge(reference, answer, compare, allow_unevaluated)
    sign = "=" if correct else "is not"
    return Reward(
        value=float(correct),
        correct=correct,
        extracted_answer=box.content.strip(),
        detail=f"{shown(answer)} {sign} {shown(reference)}{why}",
    )


def reference_of(problem: Problem) -> str:
    """The reference answer; the inside of its last box where it has one."""
    box = last_box(problem.answer)
    return problem.answer if box is None else box.content


def judge(
    reference: str, answer: str, compare: Compare, allow_unevaluated: bool
) -> tuple[bool, str]:
    """(equal?, reason for people) of two tidied answers."""
    if key(answer) == key(reference):
        return True, ""
    kind = kind_of(reference)
    if compare == "text" or (compare == "auto" and kind == "text"):
        return False, " (compared as text)"
    if kind == "number":
        return judge_number(reference, answer, allow_unevaluated)
    return judge_symbolic(reference, answer)


def judge_number(reference: str, answer: str, allow_unevaluated: bool) -> tuple[bool, str]:
    """Compare with a plain number; in `x = 3 + 4 = 7` only what follows the last = counts."""
    wanted = plain_number(reference)
    assert wanted is not None, reference
    result = answer.rpartition("=")[2].strip()
    found = plain_number(result)
    if found is not None:
        copied = wanted.denominator == 1 and is_division(result) and not is_division(reference)
        if found == wanted and copied and not allow_unevaluated:
            return False, " (a division that is not carried out)"
        return found == wanted, ""
    if not allow_unevaluated and UNEVALUATED.search(WORDS.sub("u", result)):
        return False, " (arithmetic that is not carried out)"
    return judge_symbolic(reference, answer if allow_unevaluated else result)


def judge_symbolic(reference: str, answer: str) -> tuple[bool, str]:
    """Ask math-verify. What it cannot compare is not equal, and says so."""
    from rewards import symbolic  # half a second, and only reward processes need it

    if not symbolic.can_read(reference):
        return False, " (compared as text: math-verify cannot read the reference)"
    try:
        return symbolic.are_equal(reference, answer), ""
    except MemoryError:
        raise  # says nothing about the answer
    except Exception as error:  # sympy raises nearly anything for nonsense that parses
        return False, f" (cannot be compared: {type(error).__name__})"


def shown(answer: str) -> str:
    """An answer short enough for a log line."""
    return answer if len(answer) <= SHOWN_CHARS else answer[:SHOWN_CHARS] + "..."
