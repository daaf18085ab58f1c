"""Two checks: a right answer is worth 1, a near one a part of it, and written steps a little."""

from __future__ import annotations

import re

from mgrpo.types import Problem, Reward

NUMBER_IN_BOX = re.compile(r"\\boxed\{\s*(-?\d+(?:\.\d+)?)\s*\}")
EQUATION = re.compile(r"\d\s*=\s*-?\d")
NEAR_AT_MOST = 0.5


def close(completion: str, problem: Problem, *, tolerance: float) -> Reward:
    """1 for the right number, less than 0.5 for one that is near.

    Args:
        completion: what the policy wrote; its last box counts.
        problem: `answer` is a number.
        tolerance: the relative error from which on an answer is worth nothing.
    """
    boxes = NUMBER_IN_BOX.findall(completion)
    if not boxes:
        return Reward(value=0.0, status="unparsable", detail="no number in a \\boxed{}")
    given, wanted = float(boxes[-1]), float(problem.answer)
    error = abs(given - wanted) / max(abs(wanted), 1.0)
    is_right = error == 0
    value = 1.0 if is_right else max(0.0, NEAR_AT_MOST * (1 - error / tolerance))
    return Reward(
        value=value, correct=is_right, extracted_answer=boxes[-1], detail=f"off by {error:.1%}"
    )


def shows_steps(completion: str, problem: Problem, *, enough: int = 3) -> float:
    """The share of `enough` equations that are written before the box."""
    before_box = completion.partition("\\boxed")[0]
    return min(len(EQUATION.findall(before_box)) / enough, 1.0)
