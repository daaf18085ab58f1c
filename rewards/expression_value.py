"""Equality of two formulas: exact fractions where possible, else 120 digits; never an absolute
tolerance, so that 10^{-30} and 10^{-31} stay different.

Formulas with symbols are compared at fixed points that are no special ones. Every step is
bounded, so that no formula hangs: powers and factorials too large to write out, and sums in
which one term would be lost, raise `TooHard`, and such formulas are equal only as text.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial
from typing import Any

from mpmath import MPContext
from mpmath.libmp import NoConvergence

from rewards.expression import Node

DIGITS = 120
MP = MPContext()
"""A private context: mpmath's shared one has 15 digits and is mutable."""
MP.dps = DIGITS
mpf, mpc = MP.mpf, MP.mpc

Value = Any  # a Fraction where the value is exact, else mpf or mpc
SAME_DIGITS = 80  # two values that agree this far are equal
MAX_BITS = 60_000  # of an exact fraction
MAX_EXACT_FACTORIAL = 4000
POINTS = 8
MIN_POINTS = 3  # a formula that is defined at fewer of them is not compared
BASE_LEFT_OPEN = Fraction(7919, 1009)
"""The base of a \\log without one: 10 to some, e to others, so \\log 2 is only equal to itself."""


class TooHard(Exception):
    """Not worth computing, or undefined here."""


def are_equal(one: Node, other: Node) -> bool:
    """Do both have the same value, for all values of their symbols?"""
    names = symbols_of(one)
    if names != symbols_of(other):
        names = names | symbols_of(other)  # one may cancel: x - x + 3
    if not names:
        left, right = value_at(one, None), value_at(other, None)
        return left is not None and right is not None and are_close(left, right)
    is_complex = any(n.kind == "constant" and n.name == "i" for f in (one, other) for n in f.walk())
    pairs = []
    for point in range(POINTS):
        left, right = value_at(one, point), value_at(other, point)
        if left is not None and right is not None:
            pairs.append((left, right))
    if not is_complex and sum(map(are_real, pairs)) >= MIN_POINTS:
        pairs = [pair for pair in pairs if are_real(pair)]
    return len(pairs) >= MIN_POINTS and all(are_close(*pair) for pair in pairs)


def constant_ratio(one: Node, other: Node) -> Value | None:
    """other / one if that is the same number wherever it is computed; else None.

    x + y - 5 and 2x + 2y - 10 are zero on the same line: their ratio is 2.
    """
    ratios = []
    for point in range(POINTS):
        left, right = value_at(one, point), value_at(other, point)
        if left is not None and right is not None and left != 0:
            ratios.append(divide(right, left))
    if len(ratios) < MIN_POINTS or ratios[0] == 0:
        return None
    return ratios[0] if all(are_close(ratios[0], ratio) for ratio in ratios) else None


@lru_cache(maxsize=4096)
def value_at(node: Node, point: int | None) -> Value | None:
    """The value where every symbol has a value of its own; None where there is none."""
    names = symbols_of(node)
    if names and point is None:
        return None
    values = {} if point is None else {name: symbol_value(name, point) for name in names}
    try:
        value = evaluate(node, values)
    except (TooHard, ArithmeticError, ValueError, TypeError, NoConvergence):
        return None
    if isinstance(value, mpc) and abs(value.imag) <= abs(value.real) * mpf(10) ** -SAME_DIGITS:
        value = value.real
    if not isinstance(value, Fraction) and (MP.isnan(value) or MP.isinf(value)):
        is_infinity = node.kind == "constant" or node.parts[0].kind == "constant"
        return value if is_infinity and not MP.isnan(value) and len(node.parts) < 2 else None
    return value


def symbols_of(node: Node) -> frozenset[str]:
    return frozenset(part.name for part in node.walk() if part.kind == "symbol")


def symbol_value(name: str, point: int) -> Fraction:
    """The same every time; positive at even points, of either sign at odd ones.

    The last points are larger, since many floors and powers are alike near 1.
    """
    draw = random.Random(f"{name}/{point}")
    size = Fraction(draw.randint(300, 3900), 1009 if point < POINTS / 2 else 101)
    return -size if point % 2 and draw.random() < 0.6 else size


def are_real(values: Sequence[Value]) -> bool:
    return all(is_real(value) for value in values)


def is_real(value: Value) -> bool:
    return not isinstance(value, mpc)


def are_close(one: Value, other: Value) -> bool:
    """Equal exactly, or to 80 digits where they had to be computed."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    left, right = as_float(one), as_float(other)
    if MP.isinf(left) or MP.isinf(right):
        return bool(left == right)
    return bool(abs(left - right) <= mpf(10) ** -SAME_DIGITS * max(abs(left), abs(right)))


def as_float(value: Value) -> Any:
    return mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def evaluate(node: Node, values: Mapping[str, Fraction]) -> Value:
    """The value of a tree at a point. Raises TooHard, or what mpmath raises off the domain."""
    if node.kind == "number":
        return node.value
    if node.kind == "symbol":
        return values[node.name]
    if node.kind == "constant":
        return {"pi": +MP.pi, "e": +MP.e, "i": mpc(0, 1), "infinity": mpf("inf")}[node.name]
    parts = [evaluate(part, values) for part in node.parts]
    if node.kind == "call":
        return call(node.name, parts)
    return OPERATIONS[node.kind](*parts)


def add(one: Value, other: Value) -> Value:
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return bounded(one + other)
    left, right = as_float(one), as_float(other)
    small, large = sorted((abs(left), abs(right)))
    if 0 < small < large * mpf(10) ** (SAME_DIGITS - DIGITS) and not MP.isinf(large):
        raise TooHard  # e^{-200} beside 1 would be lost
    return left + right


def multiply(one: Value, other: Value) -> Value:
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return bounded(one * other)
    return as_float(one) * as_float(other)


def divide(one: Value, other: Value) -> Value:
    if other == 0:
        raise TooHard
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return bounded(one / other)
    return as_float(one) / as_float(other)


def bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > 4 * MAX_BITS:
        raise TooHard
    return value


def power(base: Value, exponent: Value) -> Value:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        if base == 0 and exponent <= 0:
            raise TooHard
        if exponent.denominator == 1:
            return whole_power(base, int(exponent))
        if base >= 0 and (exact := exact_root(base, exponent.denominator)) is not None:
            return whole_power(exact, exponent.numerator)
    left, right = as_float(base), as_float(exponent)
    if left == 0:
        return mpf(0)
    if abs(right) * (abs(MP.log(abs(left))) + 1) > 10**9:
        raise TooHard
    return MP.power(left, right)


def whole_power(base: Fraction, exponent: int) -> Value:
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(base) in (0, 1) or size * abs(exponent) <= MAX_BITS:
        return base ** (exponent if abs(base) != 1 else exponent % 2)
    if abs(exponent) * size > 10**12:
        raise TooHard
    return MP.power(as_float(base), exponent)


def root(radicand: Value, index: Value) -> Value:
    """Odd roots of negative numbers are negative."""
    if not isinstance(index, Fraction) or index == 0:
        return power(radicand, divide(Fraction(1), index))
    if index.denominator == 1 and index % 2 == 1 and not isinstance(radicand, mpc) and radicand < 0:
        return -root(-radicand, index)
    return power(radicand, 1 / index)


def exact_root(value: Fraction, index: int) -> Fraction | None:
    """The rational root of a value that is not negative, if there is one."""
    if index > 64:
        return None
    roots = [whole_root(part, index) for part in (value.numerator, value.denominator)]
    return None if None in roots else Fraction(*roots)  # type: ignore[arg-type]


def whole_root(value: int, index: int) -> int | None:
    low, high = 0, 1 << (value.bit_length() // index + 1)
    while low < high:
        middle = (low + high) // 2
        if middle**index < value:
            low = middle + 1
        else:
            high = middle
    return low if low**index == value else None


def absolute(value: Value) -> Value:
    return abs(value)


def factorial_of(value: Value) -> Value:
    if isinstance(value, Fraction) and value.denominator == 1:
        if value < 0:
            raise TooHard
        if value <= MAX_EXACT_FACTORIAL:
            return Fraction(factorial(int(value)))
    if abs(value) > 10**9:
        raise TooHard
    return MP.gamma(as_float(value) + 1)


def binomial(top: Value, bottom: Value) -> Value:
    whole = [v for v in (top, bottom) if isinstance(v, Fraction) and v.denominator == 1]
    if len(whole) == 2 and 0 <= whole[0] <= MAX_EXACT_FACTORIAL and whole[1] >= 0:
        return Fraction(comb(int(whole[0]), int(whole[1])))
    if max(abs(as_float(top)), abs(as_float(bottom))) > 10**9:
        raise TooHard
    return MP.binomial(as_float(top), as_float(bottom))


def floor(value: Value) -> Value:
    if isinstance(value, Fraction):
        return Fraction(value.numerator // value.denominator)
    if isinstance(value, mpc) or abs(value) > 10**40:
        raise TooHard
    return Fraction(int(MP.floor(value)))


def ceiling(value: Value) -> Value:
    return -floor(-value)


def negate(value: Value) -> Value:
    return -value


def degrees(value: Value) -> Value:
    return multiply(value, MP.pi / 180)


OPERATIONS: dict[str, Callable[..., Value]] = {
    "add": add,
    "times": multiply,
    "beside": multiply,
    "over": divide,
    "power": power,
    "root": root,
    "factorial": factorial_of,
    "absolute": absolute,
    "floor": floor,
    "ceiling": ceiling,
    "binomial": binomial,
    "negate": negate,
    "degrees": degrees,
}
PLAIN = {
    "sin": MP.sin,
    "cos": MP.cos,
    "tan": MP.tan,
    "cot": MP.cot,
    "sec": MP.sec,
    "csc": MP.csc,
    "arcsin": MP.asin,
    "arccos": MP.acos,
    "arctan": MP.atan,
    "arccot": MP.acot,
    "sinh": MP.sinh,
    "cosh": MP.cosh,
    "tanh": MP.tanh,
    "exp": MP.exp,
}


def call(name: str, arguments: Sequence[Value]) -> Value:
    """A function's value. One that is only a letter, f, gets a value of its own per argument."""
    if name.startswith("letter "):
        shown = [MP.nstr(as_float(argument), 40) for argument in arguments]
        return symbol_value(f"{name}{shown}", 0)
    argument = as_float(arguments[0])
    if name in ("ln", "log", "lg"):
        base = arguments[1] if len(arguments) > 1 else {"lg": Fraction(10)}.get(name)
        if name == "log" and base is None:
            base = BASE_LEFT_OPEN
        if argument == 0:
            raise TooHard
        value = MP.log(argument)
        return value if base is None else divide(value, MP.log(as_float(base)))
    if len(arguments) > 1 or abs(argument) > (10**9 if name in ("exp", "sinh", "cosh") else 10**40):
        raise TooHard
    value = PLAIN[name](argument)
    if abs(value) < mpf(10) ** -SAME_DIGITS < mpf(10) ** -40 < abs(argument) and name != "exp":
        return Fraction(0)  # sin of pi, where the digits end
    return value
