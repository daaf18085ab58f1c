"""The check `math_answer`: compares the last \\boxed{} of a completion with the reference.

1. Both are brought to one spelling (`answer_text`).
2. Both are read as a form: number, list, relation, choice, words, ... (`answer_forms`).
3. The forms are compared (`answer_equality`); formulas by their value (`expression_value`).

A numeric reference requires a result, not arithmetic: \\boxed{3 + 4} copies the question "What
is 3 + 4?" and is not accepted for 7. The same holds for \\boxed{14/2}. Conversely, a reference that
is arithmetic, 40*(94 - 90) + 83, requires an arrangement of those numbers and not its value.
`allow_unevaluated: true` compares values in both. A policy's text is never evaluated as code, and
every step is bounded. The rules are in docs/guides/answers.md.

Problems of reasoning-gym's tasks with non-numeric answers use the task's own verifier (see
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
        completion: the policy's text.
        problem: its `answer` is the reference, with or without a \\boxed{} of its own. One that
            is empty, NaN or infinite matches no answer.
        compare: "text" never does mathematics (ignores case and spacing), "math" also does
            it for words, as products of letters; "auto" decides by the reference.
        allow_unevaluated: accept arithmetic that is still to be done, and the value of a
            reference that is arithmetic.
        percent: 50\\% is 0.5 ("value"), 50 ("number"), or "either".
        ignore_units: 18 m is 18 cm. Otherwise a stated unit must be the reference's, if that has
        one; it may always be omitted. Units are never converted.
        relative_tolerance: allowed distance of a number from the reference, relative to it. 0
        requires equality: 0.333 is not 1/3.
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
