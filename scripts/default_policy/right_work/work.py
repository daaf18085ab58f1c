"""Right work on a problem, step by step: the only work that the candidate learns from."""

from __future__ import annotations

import random
from itertools import permutations

from mgrpo.types import Problem
from scripts.default_policy import chain_sum_traces


def right_work(problem: Problem, rng: random.Random) -> str:
    """Steps without a mistake, then the boxed answer; where there are several ways, one of them."""
    if problem.domain == "chain_sum":
        working, total = chain_sum_traces.careful(problem.question, with_bug=False)
        return f"{working}\n\\boxed{{{total}}}"
    numbers, target = problem.metadata["numbers"], problem.metadata["target"]
    return rng.choice(countdown_solutions(tuple(numbers), target))


def countdown_solutions(numbers: tuple[int, ...], target: int) -> list[str]:
    """Every way to reach the target with three numbers, in which no step is negative.

    (7, 4, 5) and 31 give "7*5=35, 35-4=31.\\n\\boxed{7*5-4}". Of a sum or a product the larger part
    stands first, as of a difference.

    Raises:
        ValueError: there is none.
    """
    found = set()
    for first, second, third in permutations(numbers):
        if first < second:
            continue
        for operator in "+-*":
            between = result(first, operator, second)
            inner = f"{first}{operator}{second}"
            large, small = max(between, third), min(between, third)
            for last in "+-*":
                if result(large, last, small) != target:
                    continue
                needs_brackets = operator != "*" and (last == "*" or large == third)
                shown = f"({inner})" if needs_brackets else inner
                left, right = (shown, third) if large == between else (third, shown)
                steps = f"{inner}={between}, {large}{last}{small}={target}."
                found.add(f"{steps}\n\\boxed{{{left}{last}{right}}}")
    if not found:
        raise ValueError(f"No way from {numbers} to {target} by +, - and * without negative steps.")
    return sorted(found)


def result(left: int, operator: str, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right}[operator]
