"""A check that says in which direction a wrong number lies, and never the number."""

from __future__ import annotations

import re

from mgrpo.types import Problem, Reward

NUMBER_IN_BOX = re.compile(r"\\boxed\{\s*(-?\d+)\s*\}")


def too_low_or_high(completion: str, problem: Problem) -> Reward:
    """1 for the right number in the last box; the feedback says what is wrong with another one."""
    boxes = NUMBER_IN_BOX.findall(completion)
    if not boxes:
        said = "There is no number in a box."
        return Reward(value=0.0, status="unparsable", detail=said, feedback=said)
    given, wanted = int(boxes[-1]), int(problem.answer)
    if given == wanted:
        said = "This is right."
    else:
        said = f"{given} is too {'low' if given < wanted else 'high'}."
    return Reward(
        value=float(given == wanted),
        correct=given == wanted,
        extracted_answer=boxes[-1],
        feedback=said,
    )
