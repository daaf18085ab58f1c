"""Equality of mathematical expressions by math-verify. Importing this costs half a second.

Only reward processes import it. math-verify's own time limits are switched off: they use
`signal.alarm`, which cannot interrupt a long integer power and, outside a main thread,
raises an error that is then swallowed, so that every answer is silently wrong
(verl#5635). The process's deadline is the limit instead.

Only the LaTeX extractor is used. The other one hands text to sympy's `parse_expr`, which
evaluates it, and a completion must never be evaluated.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify

for name in ("math_verify.parser", "math_verify.grader"):
    logging.getLogger(name).setLevel(logging.ERROR)  # they warn that no time limit is set

LATEX = (LatexExtractionConfig(),)


@lru_cache(maxsize=1024)
def parsed(answer: str) -> tuple[Any, ...]:
    """math-verify's readings of a tidied answer; empty where it finds none."""
    source = answer.replace("$", "")
    readings = parse(
        f"${source}$",
        extraction_config=LATEX,
        fallback_mode="no_fallback",
        parsing_timeout=None,  # no alarm
        raise_on_error=True,
    )
    return tuple(readings)


def can_read(answer: str) -> bool:
    return bool(parsed(answer))


def are_equal(reference: str, answer: str) -> bool:
    """Are these the same mathematical object? Not symmetric: the reference sets the form.

    Raises whatever sympy raises for a pair that it cannot compare.
    """
    gold, candidate = parsed(reference), parsed(answer)
    if not gold or not candidate:
        return False
    equal = verify(list(gold), list(candidate), timeout_seconds=None, raise_on_error=True)
    return bool(equal)
