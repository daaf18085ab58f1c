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

from mgrpo.types import Problem, Reward
from rewards.answer_equality import Percent, Rules
from rewards.reference_answer import Compare, reference_answer
from rewards.task_answer import task_answer, task_of


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
    rules = Rules(
        allow_unevaluated=allow_unevaluated,
        percent=percent,
        ignore_units=ignore_units,
        relative_tolerance=relative_tolerance,
        words=compare == "math",
    )
    return reference_answer(completion, problem, rules, compare)
