"""Worked solutions for reasoning-gym's `chain_sum`: sums and differences of two-digit numbers.

The quick habit makes two bugs that children are known for (Brown and Burton, "Diagnostic
models for procedural bugs in basic mathematical skills", 1978): it forgets the carry, and it
subtracts the smaller digit from the larger one in each column.
"""

from __future__ import annotations

import re


def parse(question: str) -> list[int]:
    """The signed terms: "...: 23 + 45 - 17 =" gives [23, 45, -17]."""
    expression = question.rpartition(":")[2].replace(" ", "")
    return [int(term) for term in re.findall(r"[+-]?\d+", expression)]


def tens_and_ones(number: int) -> tuple[int, int]:
    """Split towards zero, both parts signed: -37 gives (-30, -7)."""
    tens = int(number / 10) * 10
    return tens, number - tens


def signed_sum(numbers: list[int]) -> str:
    """[40, -10] gives "40-10"."""
    return str(numbers[0]) + "".join(f"{number:+d}" for number in numbers[1:])


def at_a_glance(total: int, term: int) -> int:
    """Add without carrying, or subtract the smaller digit from the larger in each column."""
    tens, ones = abs(total) // 10, abs(total) % 10
    term_tens, term_ones = abs(term) // 10, abs(term) % 10
    if term >= 0:
        return (tens + term_tens) * 10 + (ones + term_ones) % 10
    return abs(tens - term_tens) * 10 + abs(ones - term_ones)


def quick(question: str) -> tuple[str, int]:
    """23 + 48 - 17 gives "61, 56." and 56."""
    total, *terms = parse(question)
    shown = []
    for term in terms:
        total = at_a_glance(total, term)
        shown.append(str(total))
    return f"{', '.join(shown)}.", total


def careful(question: str, with_bug: bool) -> tuple[str, int]:
    """23 + 45 - 17 gives "23+45: 60+8=68. 68-17: 50+1=51." and 51.

    The bug: in the second step, a subtraction that has to borrow adds the ones instead.
    """
    total, *terms = parse(question)
    shown = []
    for index, term in enumerate(terms):
        total_tens, total_ones = tens_and_ones(total)
        term_tens, term_ones = tens_and_ones(term)
        tens, ones = total_tens + term_tens, total_ones + term_ones
        if with_bug and index > 0 and term < 0 and tens > 0 and ones < 0:
            ones = -ones
        shown.append(f"{signed_sum([total, term])}: {signed_sum([tens, ones])}={tens + ones}.")
        total = tens + ones
    return " ".join(shown), total


def recheck(question: str) -> tuple[str, int]:
    """The careful way without its bug, and without a full stop."""
    working, total = careful(question, with_bug=False)
    return working.removesuffix("."), total
