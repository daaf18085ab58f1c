"""Arithmetic that an answer leaves to be done where the reference has done it.

\\boxed{3 + 4} copies the question "What is 3 + 4?", \\boxed{\\sqrt{12}} the question to simplify
it, \\boxed{\\sin 60^\\circ} the question for its value. Only operations on plain numbers count:
(x+1)^2 for x^2+2x+1 is another form of the same polynomial.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

from rewards.expression import Node, literal_value

LOGARITHMS = frozenset({"ln", "log", "lg"})


def is_unfinished(answer: Node, reference: Node) -> bool:
    """Does the answer hold an operation on numbers of a kind that the reference has not?"""
    wanted = literal_value(reference)
    if wanted is not None:
        found = literal_value(answer)
        is_copied_division = is_division(answer) and not is_division(reference)
        return found is None or (wanted.denominator == 1 and is_copied_division)
    if is_constant(answer) and num_sums(answer) > num_sums(reference):
        return True  # 2\\sqrt{2} + 3\\sqrt{2} for 5\\sqrt{2}
    functions = {"logarithm"} & {name_of_call(part) for part in reference.walk()}
    return not open_operations(answer) <= open_operations(reference) | functions


def is_division(node: Node) -> bool:
    """Is this number written as a division (14/2), rather than as its result?"""
    return any(part.kind == "over" for part in node.walk())


def open_operations(node: Node) -> set[str]:
    """The kinds of operations on plain numbers that this formula does not carry out."""
    kinds = (open_operation(part) for part in node.walk())
    return {kind for kind in kinds if kind is not None}


def open_operation(node: Node) -> str | None:
    parts = [literal_value(part) for part in node.parts]
    if node.kind == "call":
        return name_of_call(node) if is_constant(node) else None
    if node.kind == "degrees":
        return "degrees"
    if node.kind in ("factorial", "binomial", "absolute", "floor", "ceiling"):
        return node.kind if is_constant(node) else None
    if node.kind == "root":
        radicand, index = parts
        return "root" if radicand is not None and is_reducible(radicand, index) else None
    if [part.kind for part in node.parts] == ["root", "root"] and node.kind in ("times", "beside"):
        return "product of roots"
    if None in parts or not parts or literal_value(node) is not None:
        return None
    if node.kind == "power":
        base, exponent = parts
        assert base is not None and exponent is not None
        if exponent.denominator > 1:
            return "root" if is_reducible(base, Fraction(exponent.denominator)) else None
        return "power" if abs(exponent) > 1 else None
    return {"add": "sum", "times": "product", "beside": "product"}.get(node.kind)


def num_sums(node: Node) -> int:
    """How many sums a constant holds; a complex number is one sum by nature, and has none here."""
    if any(part.name == "i" for part in node.walk()):
        return 0
    return sum(part.kind == "add" for part in node.walk())


def name_of_call(node: Node) -> str | None:
    if node.kind != "call":
        return None
    return "logarithm" if node.name in LOGARITHMS else "function"


def is_constant(node: Node) -> bool:
    return not any(part.kind == "symbol" for part in node.walk())


def is_reducible(radicand: Fraction, index: Fraction | None) -> bool:
    """Can a factor (of at most 1000) be taken out of the root, as of 12 = 4 * 3?"""
    if index is None or index.denominator > 1 or not 2 <= index <= 64:
        return False
    powers = [factor ** int(index) for factor in range(2, 1001)]
    numbers = (abs(radicand.numerator), radicand.denominator)
    return any(n >= power and n % power == 0 for n in numbers for power in powers if n > 1)


def is_arithmetic(node: Node) -> bool:
    """Sums, differences, products or quotients of plain numbers, and nothing else."""
    kinds = {"number", "add", "times", "beside", "over", "negate"}
    return literal_value(node) is None and all(part.kind in kinds for part in node.walk())


def numbers_of(node: Node) -> Counter[Fraction]:
    """The numbers that a formula is made of, each as often as it stands there."""
    return Counter(part.value for part in node.walk() if part.kind == "number")
