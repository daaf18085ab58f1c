"""Equality of two answer forms, by rules that depend on the reference.

Every rule is described in `docs/guides/answers.md`. Avoiding false positives has priority: a policy
is trained against these rules and exploits every gap.
"""

from __future__ import annotations

import re
from collections.abc import Sequence as Members
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from rewards.answer_forms import (
    SPACED,
    Choice,
    Form,
    Joined,
    Matrix,
    Numeral,
    Relation,
    Scalar,
    Sequence,
    Words,
    as_product,
    read,
)
from rewards.expression import Node, literal_value
from rewards.expression_value import are_equal, as_float, constant_ratio, is_real, mpf, value_at
from rewards.regions import are_same_region, name_of, region_of
from rewards.spellings import word_set
from rewards.unfinished import is_arithmetic, is_unfinished, numbers_of

Percent = Literal["either", "value", "number"]

FLIPPED = {">": "<", "\\ge": "\\le"}
NO_NAMES = word_set(
    "not no false true wrong incorrect never isn't isnt yes but except unless anything maybe"
)
IN_ORDER = "xyz"
NAME = re.compile(
    r"[A-Z]{2,3}|(?=.*[aeiou])[^\W\d_]{3,}(?: [^\W\d_]+)*|m?\\(?:angle|triangle) ?\w{1,3}"
)
"""AB, Area, total cost: what a value is of. xy is a product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Where graders disagree; see `math_answer`."""

    allow_unevaluated: bool = False
    percent: Percent = "either"
    ignore_units: bool = False
    relative_tolerance: float = 0.0
    words: bool = False


@dataclass(frozen=True, slots=True)
class Definition:
    """x = 5: a name, which may be missing, and the value it is given."""

    name: str
    values: tuple[Form, ...]  # all forms of it, the last one last: x = 3 + 4 = 7


def is_same(reference: Form, answer: Form, rules: Rules, *, nested: bool = False) -> bool:
    """Is this the reference answer?

    Args:
        reference: what decides.
        answer: the policy's answer.
        rules: where graders disagree.
        nested: they are members of a list, where arithmetic may be left to be done.
    """
    if reference == answer:
        return True
    if isinstance(reference, Choice) or isinstance(answer, Choice):
        return is_same_choice(reference, answer, rules)
    if isinstance(reference, Relation) or isinstance(answer, Relation):
        return is_same_relation(reference, answer, rules)
    if isinstance(reference, Words) or isinstance(answer, Words):
        return is_same_text(reference, answer, rules)
    if isinstance(reference, Numeral) or isinstance(answer, Numeral):
        return is_same_numeral(reference, answer)
    if isinstance(reference, Scalar) and isinstance(answer, Scalar):
        return is_same_scalar(reference, answer, rules, nested)
    if isinstance(reference, Joined) or isinstance(answer, Joined):
        return is_same_set(reference, answer, rules)
    if isinstance(reference, Matrix) and isinstance(answer, Matrix):
        return is_same_matrix(reference, answer, rules)
    if Scalar in (type(reference), type(answer)) and is_same_region(reference, answer):
        return True
    wanted, found = as_sequence(reference), as_sequence(answer)
    return wanted is not None and found is not None and is_same_sequence(wanted, found, rules)


def is_same_choice(reference: Form, answer: Form, rules: Rules) -> bool:
    """The letter is the answer, and so is what the option says where the reference knows it."""
    if isinstance(reference, Choice):
        if isinstance(answer, Choice):
            is_letter = reference.letter.upper() == answer.letter.upper()
            known = reference.option is not None and answer.option is not None
            return is_letter and (not known or option_is(reference.option, answer.option, rules))
        if name_of(answer).upper() == reference.letter.upper():
            return True
        return option_is(reference.option, answer, rules)
    assert isinstance(answer, Choice)
    if name := name_of(reference):
        return name in (answer.letter, answer.letter.upper())
    return option_is(answer.option, reference, rules, swapped=True)


def option_is(option: Form | None, form: Form | None, rules: Rules, swapped: bool = False) -> bool:
    if option is None or form is None:
        return False
    return is_same(form, option, rules) if swapped else is_same(option, form, rules)


def is_same_relation(reference: Form, answer: Form, rules: Rules) -> bool:
    """x = 5 is 5, x > 2 is (2, \\infty), and y = 2x is 2x - y = 0; x + y = 5 is not 5."""
    wanted, found = definition_of(reference), definition_of(answer)
    if wanted is not None and found is not None and are_same_names(wanted.name, found.name):
        values = [(w, f) for w in wanted.values for f in found.values]
    elif wanted is not None and not isinstance(answer, Relation):
        written = as_product(answer, answer.text) if isinstance(answer, Words) else answer
        values = [(value, written) for value in wanted.values]
    elif found is not None and not isinstance(reference, Relation):
        values = [(reference, value) for value in found.values]
    else:
        values = []
    if any(is_same(one, other, rules) for one, other in values):
        return True
    if is_same_region(reference, answer):
        return True
    if isinstance(reference, Relation) and isinstance(answer, Relation):
        return not is_solved(reference) and is_same_unsolved(reference, answer, rules)
    return is_same_members(reference, answer, rules)


def is_solved(reference: Relation) -> bool:
    """Is this x = 5 or x > 3? Then 2x + 3 = 13 copies the question that it answers."""
    definition = definition_of(reference)
    value = definition.values[-1] if definition is not None else None
    has_number = isinstance(value, Scalar) and is_constant(value.node)
    return has_number or region_of(reference) is not None


def is_same_unsolved(reference: Relation, answer: Relation, rules: Rules) -> bool:
    """a < b < c, part by part; 2x - y = 0 and y = 2x, as equations."""
    is_like = reference.signs == answer.signs
    if is_like and are_same_in_order(reference.parts, answer.parts, rules):
        return True
    return is_same_equation(reference, answer)


def is_same_members(reference: Form, answer: Form, rules: Rules) -> bool:
    """x = 1 against the list x = 1, x = 1."""
    if isinstance(answer, Sequence) and not answer.brackets and isinstance(reference, Scalar):
        return is_same_sequence(Sequence((reference,)), answer, rules)
    return False


def definition_of(form: Form) -> Definition | None:
    """The name and value of x = 5, 5 = x, 3 + 4 = 7 and x = 3 + 4 = 7; None of other relations.

    All constants of a chain must be equal: 6 = 7 = 8 is a row of guesses.
    """
    if not isinstance(form, Relation) or not set(form.signs) <= {"=", "\\approx", "\\in"}:
        return None
    if "\\in" in form.signs and not is_membership(form):
        return None
    names = [place for place, part in enumerate(form.parts) if is_name(part)]
    values = [part for place, part in enumerate(form.parts) if place not in names]
    if any(is_denial(part) for part in form.parts) or not values or len(names) > 1:
        return None
    if names and names[0] not in (0, len(form.parts) - 1):
        return None
    if "\\approx" in form.signs:
        return rounded_definition(form, names, values)
    constants = [part for part in values if isinstance(part, Scalar) and is_constant(part.node)]
    if not names and len(constants) < len(values):
        return None
    if not all(are_equal(constants[0].node, other.node) for other in constants[1:]):
        return None
    if len(values) > 1 and not is_chain(values, constants):
        return None
    name = spoken_name(form.parts[names[0]]) if names else ""
    return Definition(name, tuple(values) if len(constants) == len(values) else (values[-1],))


def is_chain(values: list[Form], constants: list[Scalar]) -> bool:
    """Formulas only; before a formula that is no constant, equal ones only.

    A = \\pi r^2 = 9\\pi puts numbers into a formula, and may. y = 2 = x + 1 is two answers.
    """
    formulas = [part.node for part in values if isinstance(part, Scalar)]
    if len(formulas) < len(values):
        return False
    ends_in_constant = bool(constants) and constants[-1] is values[-1]
    return ends_in_constant or all(are_equal(formulas[-1], other) for other in formulas[:-1])


def is_membership(form: Relation) -> bool:
    """x \\in \\{1, 2\\}; an interval is a region instead."""
    last = form.parts[-1]
    return len(form.parts) == 2 and isinstance(last, Sequence) and last.brackets == "{}"


def rounded_definition(form: Relation, names: list[int], values: list[Form]) -> Definition | None:
    """2\\pi \\approx 6.28: either side, if the second rounds the first to its own digits."""
    name = spoken_name(form.parts[names[0]]) if names else ""
    if len(values) == 1 and len(form.signs) == 1:
        return Definition(name, (values[0],))
    if len(values) != 2 or form.signs[-1] != "\\approx" or form.signs.count("\\approx") > 1:
        return None
    exact, shown = values
    if not isinstance(exact, Scalar) or not isinstance(shown, Scalar):
        return None
    rounded, value = literal_value(shown.node), value_at(exact.node, None)
    if rounded is None or value is None or not is_constant(exact.node) or not is_real(value):
        return None
    places = next((n for n in range(40) if (rounded * 10**n).denominator == 1), 40)
    is_close = abs(as_float(value) - as_float(rounded)) <= mpf(10) ** -places / 2
    return Definition(name, (exact, shown)) if is_close else None


def is_name(form: Form) -> bool:
    """A symbol, f(x), (x, y), or plain words: what may stand before a value's ="""
    if isinstance(form, Sequence):
        return form.brackets == "()" and all(name_of(item) for item in form.items)
    if isinstance(form, Words):
        return NAME.fullmatch(form.text) is not None
    if not isinstance(form, Scalar):
        return False
    node = form.node
    if node.kind == "absolute" and node.parts[0].kind == "beside":  # |AB|, a length
        return all(part.name.isupper() for part in node.parts[0].parts)
    return bool(name_of(form)) or (node.kind == "call" and node.name.startswith("letter "))


def is_denial(form: Form) -> bool:
    return isinstance(form, Words) and bool(NO_NAMES & set(form.text.split()))


def spoken_name(form: Form) -> str:
    """The name by which definitions are told apart; words and points have none."""
    if not isinstance(form, Scalar):
        return ""
    is_function_of_symbols = all(part.kind == "symbol" for part in form.node.parts)
    return form.node.name.removeprefix("letter ") if is_function_of_symbols else str(form.node)


def are_same_names(one: str, other: str) -> bool:
    return not one or not other or one == other or {one, other} <= {"y", "f"}


def is_same_region(reference: Form, answer: Form) -> bool:
    wanted, found = region_of(reference), region_of(answer)
    return wanted is not None and found is not None and are_same_region(wanted, found)


def is_same_equation(reference: Relation, answer: Relation) -> bool:
    """Two equations (or inequalities) with the same solutions, up to a constant factor."""
    sides = [difference(one) for one in (reference, answer)]
    if sides[0] is None or sides[1] is None or sides[0][0] != sides[1][0]:
        return False
    (sign, wanted), (_, found) = sides[0], sides[1]
    ratio = constant_ratio(wanted, found)
    if ratio is None:
        return False
    return sign in ("=", "\\ne") or (is_real(ratio) and as_float(ratio) > 0)


def difference(form: Relation) -> tuple[str, Node] | None:
    """(sign, left - right), every > turned into <."""
    if len(form.parts) != 2 or not all(isinstance(p, Scalar) and not p.unit for p in form.parts):
        return None
    left, right = (part.node for part in form.parts if isinstance(part, Scalar))
    sign = form.signs[0]
    if sign in FLIPPED:
        left, right, sign = right, left, FLIPPED[sign]
    if sign not in ("=", "<", "\\le", "\\ne"):
        return None
    return sign, Node("add", (left, Node("negate", (right,))))


def is_same_text(reference: Form, answer: Form, rules: Rules) -> bool:
    """Words are equal to the same words; 12 345 is 12345 where that is the reference."""
    if isinstance(reference, Words) and isinstance(answer, Words):
        return reference.text == answer.text
    if (
        isinstance(reference, Scalar)
        and isinstance(answer, Words)
        and SPACED.fullmatch(answer.text)
    ):
        return is_same(reference, read(answer.text.replace(" ", "")), rules)
    return is_same_region(reference, answer)


def is_same_numeral(reference: Form, answer: Form) -> bool:
    """Digits and base; a base that is left out is that of the question, or ten."""
    if isinstance(reference, Numeral) and isinstance(answer, Numeral):
        return reference == answer
    numeral, other = (reference, answer) if isinstance(reference, Numeral) else (answer, reference)
    assert isinstance(numeral, Numeral)
    value = literal_value(other.node) if isinstance(other, Scalar) else None
    has_base = isinstance(reference, Numeral) or numeral.base == 10
    return has_base and value is not None and str(value) == numeral.digits


def is_same_scalar(reference: Scalar, answer: Scalar, rules: Rules, nested: bool) -> bool:
    """The same unit where both have one, no arithmetic left to be done, and the same value."""
    units = (reference.unit, answer.unit)
    if units[0] and units[1] and not rules.ignore_units and not units[0].is_same(units[1]):
        return False
    if (reference.is_percent and answer.unit) or (answer.is_percent and reference.unit):
        return False
    is_finished = nested or rules.allow_unevaluated or reference.node == answer.node
    if not is_finished and is_arithmetic(reference.node):
        has_same_numbers = numbers_of(reference.node) == numbers_of(answer.node)
        return has_same_numbers and are_equal(reference.node, answer.node)
    return is_angle(reference, answer) or any(
        (is_finished or not is_unfinished(found, wanted))
        and (are_equal(wanted, found) or are_near(wanted, found, rules.relative_tolerance))
        for wanted, found in readings(reference, answer, rules)
    )


def readings(reference: Scalar, answer: Scalar, rules: Rules) -> list[tuple[Node, Node]]:
    """The pairs of values to compare: a percent sign may divide by 100 or be like a unit."""
    wanted, found = reference.node, answer.node
    if reference.is_percent == answer.is_percent:
        return [(wanted, found)]
    divided = (hundredth(wanted), found) if reference.is_percent else (wanted, hundredth(found))
    value = literal_value(wanted)
    if rules.percent == "either" and answer.is_percent and value is not None and abs(value) < 1:
        return [divided]  # 0.5 is 50%, and not 0.5%
    pairs = {"value": [divided], "number": [(wanted, found)], "either": [(wanted, found), divided]}
    return pairs[rules.percent]


def hundredth(node: Node) -> Node:
    value = literal_value(node)
    if value is None:
        return Node("over", (node, Node("number", value=Fraction(100))))
    return Node("number", value=value / 100)


def is_angle(reference: Scalar, answer: Scalar) -> bool:
    """90 degrees against \\pi/2: one has the sign of degrees, the other \\pi and no unit."""
    for one, other in ((reference, answer), (answer, reference)):
        has_degrees = one.unit is not None and one.unit.powers == {("degree", 1)}
        has_pi = other.unit is None and any(part.name == "pi" for part in other.node.walk())
        if has_degrees and has_pi and literal_value(one.node) is not None:
            return are_equal(Node("degrees", (one.node,)), other.node)
    return False


def are_near(wanted: Node, found: Node, relative_tolerance: float) -> bool:
    if not relative_tolerance or not is_constant(wanted) or not is_constant(found):
        return False
    left, right = value_at(wanted, None), value_at(found, None)
    if left is None or right is None:
        return False
    a, b = as_float(left), as_float(right)
    return bool(abs(a - b) <= mpf(relative_tolerance) * abs(a))


def is_constant(node: Node) -> bool:
    return not any(part.kind == "symbol" for part in node.walk())


def is_same_set(reference: Form, answer: Form, rules: Rules) -> bool:
    """Unions: the same set of real numbers, or the same parts in any order."""
    if is_same_region(reference, answer):
        return True
    if not isinstance(reference, Joined) or not isinstance(answer, Joined):
        return False
    same_sign = reference.sign == answer.sign
    if reference.sign == "minus":
        return same_sign and are_same_in_order(reference.parts, answer.parts, rules)
    return same_sign and are_same_in_any_order(reference.parts, answer.parts, rules)


def is_same_matrix(reference: Matrix, answer: Matrix, rules: Rules) -> bool:
    return len(reference.rows) == len(answer.rows) and all(
        are_same_in_order(wanted, found, rules)
        for wanted, found in zip(reference.rows, answer.rows, strict=True)
    )


def as_sequence(form: Form) -> Sequence | None:
    """A column is a tuple, other matrices are no sequences; anything else is a list of one."""
    if isinstance(form, Matrix):
        is_column = all(len(row) == 1 for row in form.rows)
        return Sequence(tuple(row[0] for row in form.rows), "()") if is_column else None
    return form if isinstance(form, Sequence) else Sequence((form,), "")


def is_same_sequence(reference: Sequence, answer: Sequence, rules: Rules) -> bool:
    """Sets and bare lists have no order, everything else has; see `have_same_brackets`."""
    if is_same_conditions(reference, answer):
        return True
    reference, answer = without_names(reference, answer, rules)
    wanted, found = reference.items, answer.items
    if len(found) == 1 != len(wanted) and isinstance(found[0], Scalar):
        return False
    if not have_same_brackets(reference, answer):
        return False
    if answer.brackets in ("", "{}") and reference.brackets in ("", "{}"):
        if "{}" in (reference.brackets, answer.brackets) or len(wanted) == 1:
            wanted, found = distinct(wanted, rules), distinct(found, rules)
        return are_same_in_any_order(wanted, found, rules)
    return are_same_in_order(wanted, found, rules)


def is_same_conditions(reference: Sequence, answer: Sequence) -> bool:
    """x < 1 or x > 3 against x > 3 or x < 1, which have names but are no definitions."""
    has_relation = any(isinstance(item, Relation) for item in (*reference.items, *answer.items))
    return has_relation and is_same_region(reference, answer)


def have_same_brackets(reference: Sequence, answer: Sequence) -> bool:
    """(1, 2) is not [1, 2] or {1, 2}; a bare list may stand for a point or a set.

    From three members on, (1, 2, 3) and [1, 2, 3] are no intervals but the same row.
    """
    brackets = {reference.brackets, answer.brackets}
    if len(brackets) == 1 or brackets == {"", "{}"}:
        return True
    if len(reference.items) == len(answer.items) == 1:
        return True
    return brackets == {"", "()"} or ("{}" not in brackets and len(reference.items) > 2)


def without_names(reference: Sequence, answer: Sequence, rules: Rules) -> tuple[Sequence, Sequence]:
    """Values without their names: those of one name are a list, those of several a point.

    x = 1 or x = 2 is the list 1, 2. x = 1, y = 2 is the point (1, 2), also if y comes first.
    """
    wanted, found = names_and_values(reference), names_and_values(answer)
    if wanted is not None and found is not None:
        names, others = dict(wanted), dict(found)
        if len(names) == len(wanted) > 1 and names.keys() == others.keys():
            ordered = sorted(names)
            return (
                Sequence(tuple(names[name] for name in ordered), "()"),
                Sequence(tuple(others[name] for name in ordered), "()"),
            )
        if not have_one_name(wanted) or not have_one_name(found):
            return reference, answer
    return unnamed(reference, wanted), unnamed(answer, found)


def names_and_values(form: Sequence) -> list[tuple[str, Form]] | None:
    """The definitions that a list's members are; None if one is something else.

    x = 1, 2 gives both values to x.
    """
    pairs: list[tuple[str, Form]] = []
    for item in form.items:
        definition = definition_of(item)
        if definition is not None and definition.name:
            pairs.append((definition.name, definition.values[-1]))
        elif pairs and not isinstance(item, Relation) and form.brackets == "":
            pairs.append((pairs[0][0], item))
        else:
            return None
    return pairs or None


def have_one_name(pairs: list[tuple[str, Form]]) -> bool:
    """x_1 and x_2 are two values of one name."""
    return len({name.partition("_")[0] for name, _ in pairs}) == 1


def unnamed(form: Sequence, pairs: list[tuple[str, Form]] | None) -> Sequence:
    if pairs is None:
        return form
    if have_one_name(pairs):
        return Sequence(tuple(value for _, value in pairs), form.brackets, form.joiner)
    if all(name in IN_ORDER for name, _ in pairs):
        pairs = sorted(pairs, key=lambda pair: pair[0])
    return Sequence(tuple(value for _, value in pairs), "()")


def distinct(items: Members[Form], rules: Rules) -> tuple[Form, ...]:
    kept: list[Form] = []
    for item in items:
        if not any(is_same(other, item, rules, nested=True) for other in kept):
            kept.append(item)
    return tuple(kept)


def are_same_in_order(wanted: Members[Form], found: Members[Form], rules: Rules) -> bool:
    return len(wanted) == len(found) and all(
        is_same(one, other, rules, nested=len(wanted) > 1)
        for one, other in zip(wanted, found, strict=True)
    )


def are_same_in_any_order(wanted: Members[Form], found: Members[Form], rules: Rules) -> bool:
    if len(wanted) != len(found):
        return False
    rest = list(found)
    for one in wanted:
        nested = len(wanted) > 1
        match = next((o for o in rest if is_same(one, o, rules, nested=nested)), None)
        if match is None:
            return False
        rest.remove(match)
    return True
