"""Right work on a problem, step by step: the only work that the candidate learns from."""

from __future__ import annotations

import re

from mgrpo.types import Problem
from scripts.default_policy import chain_sum_traces

EQUATION = re.compile(
    r"(?:(?P<minuend>\d+) - )?(?:(?P<factor>\d+)\*)?(?P<name>[a-z])"
    r"(?P<number> [+-] \d+)? = (?P<total>-?\d+)"
)
"""The forms of a linear equation with one term of the unknown: `19*h + 5 = 81`, `7 - 3*x = -8`."""


def right_work(problem: Problem) -> str:
    """Steps without a mistake, then the boxed answer."""
    if problem.domain == "chain_sum":
        working, total = chain_sum_traces.careful(problem.question, with_bug=False)
    else:
        working, total = solved(problem.metadata["equation"])
    return f"{working}\n\\boxed{{{total}}}"


def solved(equation: str) -> tuple[str, int]:
    """The steps and the unknown: "19*h + 5 = 81" gives "19*h=81-5=76, h=4." and 4.

    Raises:
        ValueError: the equation has another form, or no whole solution.
    """
    found = EQUATION.fullmatch(equation)
    if found is None:
        raise ValueError(f"{equation!r} is not a linear equation with one term of the unknown.")
    total, name = int(found["total"]), found["name"]
    factor = int(found["factor"] or 1)
    if found["minuend"]:  # 7 - 3*x = -8: 3*x is 7 + 8
        known, taken = int(found["minuend"]), total
    else:
        known, taken = total, int((found["number"] or "0").replace(" ", ""))
    product = known - taken
    if product % factor:
        raise ValueError(f"{equation!r} has no whole solution.")
    unknown = product // factor
    term = name if factor == 1 else f"{factor}*{name}"
    steps = f"{term}={known}{-taken:+d}={product}"
    return f"{steps}." if factor == 1 else f"{steps}, {name}={unknown}.", unknown
