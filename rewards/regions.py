"""Sets of real numbers: [1, 2], 1 <= x <= 2, x < 1 or x > 3, (-oo, 1) \\cup (3, oo), x \\ne 0."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cmp_to_key

from rewards.answer_forms import REALS, Form, Joined, Relation, Scalar, Sequence, Words
from rewards.expression import Node
from rewards.expression_value import Value, are_close, as_float, is_real, mpf, value_at

INFINITY = mpf("inf")


@dataclass(frozen=True, slots=True)
class Interval:
    low: Value
    high: Value
    holds_low: bool
    holds_high: bool

    @property
    def is_empty(self) -> bool:
        if are_close(self.low, self.high):
            return not (self.holds_low and self.holds_high)
        return bool(as_float(self.low) > as_float(self.high))


@dataclass(frozen=True, slots=True)
class Region:
    """Disjoint intervals from left to right, and the variable that they are of, if one is named."""

    intervals: tuple[Interval, ...]
    variable: str = ""


EVERYTHING = Interval(-INFINITY, INFINITY, False, False)


def are_same_region(one: Region, other: Region) -> bool:
    if one.variable and other.variable and one.variable != other.variable:
        return False
    pairs = list(zip(one.intervals, other.intervals, strict=False))
    return len(one.intervals) == len(other.intervals) and all(
        are_close(a.low, b.low)
        and are_close(a.high, b.high)
        and (a.holds_low, a.holds_high) == (b.holds_low, b.holds_high)
        for a, b in pairs
    )


def region_of(form: Form) -> Region | None:
    """The set of real numbers that a form is; None if it is none."""
    if isinstance(form, Words):
        return Region((EVERYTHING,)) if form.text in REALS else None
    if isinstance(form, Scalar):
        is_reals = form.node == Node("symbol", name="mathbb R")
        return Region((EVERYTHING,)) if is_reals else None
    if isinstance(form, Sequence):
        return region_of_sequence(form)
    if isinstance(form, Joined):
        return region_of_joined(form)
    return region_of_relation(form) if isinstance(form, Relation) else None


def region_of_sequence(form: Sequence) -> Region | None:
    if form.brackets == "":
        return region_of_conditions(form)
    values = [constant_of(item) for item in form.items]
    if form.brackets == "{}":
        return (
            Region(united([Interval(v, v, True, True) for v in values if v is not None]))
            if (None not in values)
            else None
        )
    if len(values) != 2 or values[0] is None or values[1] is None:
        return None
    interval = Interval(values[0], values[1], form.brackets[0] == "[", form.brackets[1] == "]")
    return None if interval.is_empty else Region((interval,))


def region_of_conditions(form: Sequence) -> Region | None:
    """Conditions on one variable: "or" unites, "and" intersects; a comma means whichever is not
    empty, "and" first."""
    regions = [region_of(item) for item in form.items]
    if not regions or not all(isinstance(item, Relation) for item in form.items):
        return None
    known = [region for region in regions if region is not None]
    if len(known) < len(regions) or len({region.variable for region in known}) > 1:
        return None
    common = known[0].intervals
    for region in known[1:]:
        common = intersected(common, region.intervals)
    if form.joiner == "and" or (form.joiner == "," and common):
        return Region(common, known[0].variable)
    every = [interval for region in known for interval in region.intervals]
    return Region(united(every), known[0].variable)


def region_of_joined(form: Joined) -> Region | None:
    regions = [region_of(part) for part in form.parts]
    known = [region for region in regions if region is not None]
    if len(known) < len(regions):
        return None
    if form.sign == "cup":
        return Region(united([interval for region in known for interval in region.intervals]))
    return Region(intersected(known[0].intervals, complement(known[1].intervals)))


def region_of_relation(form: Relation) -> Region | None:
    """Inequalities with one bare symbol and constants; x \\in [1, 2]."""
    names = [place for place, part in enumerate(form.parts) if variable_of(part)]
    if len(names) != 1:
        return None
    place, variable = names[0], variable_of(form.parts[names[0]])
    if form.signs == ("\\in",):
        region = region_of(form.parts[1]) if place == 0 else None
        return None if region is None else Region(region.intervals, variable)
    if "=" in form.signs or "\\in" in form.signs or "\\approx" in form.signs:
        return None
    intervals: tuple[Interval, ...] = (EVERYTHING,)
    for left, sign, right in zip(form.parts, form.signs, form.parts[1:], strict=False):
        found = half_line(left, sign, right)
        if found is None:
            return None
        intervals = intersected(intervals, found)
    return Region(intervals, variable)


def half_line(left: Form, sign: str, right: Form) -> tuple[Interval, ...] | None:
    """Where one inequality between a symbol and a constant holds."""
    flipped = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "\\ne": "\\ne"}
    if not variable_of(left):
        left, sign, right = right, flipped[sign], left
    bound = constant_of(right)
    if not variable_of(left) or bound is None:
        return None
    if not name_of(left):
        return within(sign, bound)
    below = Interval(-INFINITY, bound, False, sign == "\\le")
    above = Interval(bound, INFINITY, sign == "\\ge", False)
    if sign == "\\ne":
        return (below, above)
    return (below,) if sign in ("<", "\\le") else (above,)


def within(sign: str, bound: Value) -> tuple[Interval, ...] | None:
    """Where |x| is less, or more, than a bound."""
    if sign not in ("<", "\\le", ">", "\\ge") or as_float(bound) <= 0:
        return None
    inside = Interval(-bound, bound, sign in ("\\le", ">"), sign in ("\\le", ">"))
    return (inside,) if sign in ("<", "\\le") else complement((inside,))


def variable_of(form: Form) -> str:
    """The symbol of x or |x|, or ""."""
    if isinstance(form, Scalar) and form.node.kind == "absolute" and form.unit is None:
        return name_of(Scalar(form.node.parts[0]))
    return name_of(form)


def name_of(form: Form) -> str:
    """The symbol that a form is, or ""."""
    is_symbol = isinstance(form, Scalar) and form.node.kind == "symbol" and form.unit is None
    return form.node.name if is_symbol and isinstance(form, Scalar) else ""


def constant_of(form: Form) -> Value | None:
    """The value of a formula without symbols; None of anything else."""
    if not isinstance(form, Scalar) or form.unit is not None or form.is_percent:
        return None
    if any(part.kind == "symbol" for part in form.node.walk()):
        return None
    value = value_at(form.node, None)
    return value if value is None or is_real(value) else None


def compare(one: Interval, other: Interval) -> int:
    if are_close(one.low, other.low):
        return int(other.holds_low) - int(one.holds_low)
    return -1 if as_float(one.low) < as_float(other.low) else 1


def united(intervals: list[Interval]) -> tuple[Interval, ...]:
    """The same set as disjoint intervals, from left to right."""
    merged: list[Interval] = []
    for one in sorted((i for i in intervals if not i.is_empty), key=cmp_to_key(compare)):
        last = merged[-1] if merged else None
        if last is None or not touch(last, one):
            merged.append(one)
        elif are_close(last.high, one.high):
            holds = last.holds_high or one.holds_high
            merged[-1] = Interval(last.low, last.high, last.holds_low, holds)
        elif as_float(one.high) > as_float(last.high):
            merged[-1] = Interval(last.low, one.high, last.holds_low, one.holds_high)
    return tuple(merged)


def touch(left: Interval, right: Interval) -> bool:
    if are_close(left.high, right.low):
        return left.holds_high or right.holds_low
    return bool(as_float(right.low) < as_float(left.high))


def complement(intervals: tuple[Interval, ...]) -> tuple[Interval, ...]:
    rest: tuple[Interval, ...] = (EVERYTHING,)
    for interval in intervals:
        sides = (
            Interval(-INFINITY, interval.low, False, not interval.holds_low),
            Interval(interval.high, INFINITY, not interval.holds_high, False),
        )
        rest = intersected(rest, tuple(side for side in sides if not side.is_empty))
    return rest


def intersected(left: tuple[Interval, ...], right: tuple[Interval, ...]) -> tuple[Interval, ...]:
    return united([overlap(one, other) for one in left for other in right])


def overlap(one: Interval, other: Interval) -> Interval:
    low = max((one, other), key=cmp_to_key(compare))
    by_high = [
        Interval(-i.high, -i.low, i.holds_high, i.holds_low) for i in (one, other)
    ]  # mirrored, so that the same order serves
    high = max(by_high, key=cmp_to_key(compare))
    return Interval(low.low, -high.low, low.holds_low, high.holds_low)
