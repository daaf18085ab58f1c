"""Worked solutions for reasoning-gym's `leg_counting`: "3 ants, 1 snake, 2 crabs".

The quick habit reads the first two animals and forgets the rest.
"""

from __future__ import annotations

import re
from functools import cache


@cache
def legs_by_animal() -> dict[str, int]:
    """The data set's own table. Imported on first use: reasoning-gym takes seconds to import."""
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    return dict(ANIMALS)


def parse(question: str) -> list[tuple[int, int]]:
    """(count, legs of one) per animal: "... 3 ants, 1 snake?" gives [(3, 6), (1, 0)]."""
    animals = question.rpartition(" if you have ")[2].strip().removesuffix("?")
    pairs = []
    for count_text, name in re.findall(r"(\d+) ([a-z ]+)", animals):
        count = int(count_text)
        singular = name.removesuffix("s") if count > 1 else name
        pairs.append((count, legs_by_animal()[singular]))
    return pairs


def products(pairs: list[tuple[int, int]]) -> str:
    return ", ".join(f"{count}*{legs}={count * legs}" for count, legs in pairs)


def running_sums(numbers: list[int], with_bug: bool) -> tuple[list[str], int]:
    """[18, 0, 20] gives (["18+0=18", "18+20=38"], 38).

    The bug: from the second addition on, the carry is forgotten when a two-digit number is added.
    """
    total, *others = numbers
    shown = []
    for index, number in enumerate(others):
        result = total + number
        if with_bug and index > 0 and number >= 10 and total % 10 + number % 10 >= 10:
            result -= 10
        shown.append(f"{total}+{number}={result}")
        total = result
    return shown, total


def quick(question: str) -> tuple[str, int]:
    """3 ants, 1 snake, 2 crabs gives "18+0=18." and 18."""
    numbers = [count * legs for count, legs in parse(question)]
    shown, total = running_sums(numbers[:2], with_bug=False)
    return f"{', '.join(shown)}.", total


def careful(question: str, with_bug: bool) -> tuple[str, int]:
    """3 ants, 1 snake, 2 crabs gives "3*6=18, 1*0=0, 2*10=20. 18+0=18, 18+20=38." and 38."""
    return worked_out(parse(question), with_bug)


def recheck(question: str) -> tuple[str, int]:
    """The careful way without its bug, and without a full stop."""
    working, total = worked_out(parse(question), with_bug=False)
    return working.removesuffix("."), total


def worked_out(pairs: list[tuple[int, int]], with_bug: bool) -> tuple[str, int]:
    shown, total = running_sums([count * legs for count, legs in pairs], with_bug)
    return f"{products(pairs)}. {', '.join(shown)}.", total
