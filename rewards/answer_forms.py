"""The forms of an answer: a number with its unit, a list, a relation, a choice, words, ...

`read` gives every cleaned answer exactly one form. Unreadable answers are `Words`, which are equal
only to the same words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from rewards.answer_text import LINE_END, THOUSANDS, without_text
from rewards.boxed import group_end
from rewards.expression import Node, literal_value, read_expression
from rewards.spellings import FUNCTIONS
from rewards.units import CURRENCY, MULTIPLIERS, VOWEL, Unit, is_bare_unit, is_remark, read_unit

MAX_UNIT_CHARS = 80
MAX_NESTING = 12  # of lists within lists
SHORT_WORDS = frozenset({"no", "ok", "is", "it", "in", "on", "up", "to", "of", "or", "by", "at"})

SEPARATOR = re.compile(
    r"\s*(?:[,;]\s*)?(?:\\text\s*\{\s*,?\s*(?P<joined>and|or)\s*,?\s*(?:either\s*)?\}"
    r"|(?<![a-zA-Z\\])(?P<word>and|or)(?![a-zA-Z])|\\(?P<sign>lor|land)(?![a-zA-Z])|[,;]|(?<=\d)\s*&)\s*"
)
SIGNS = re.compile(r"=|<|>|\\(?:le|ge|ne|in|approx)(?![a-zA-Z])")
SET_SIGNS = re.compile(r"\\(?:cup|setminus)(?![a-zA-Z])|(?<=\\mathbb\{R\})\s*-\s*(?=\\\{)")
OPENING = re.compile(r"\\\{|\\langle(?![a-zA-Z])|[(\[{]")
CLOSING = re.compile(r"\\\}|\\rangle(?![a-zA-Z])|[)\]}]")
ENCLOSED = re.compile(
    r"(?P<open>\\\{|\\langle(?![a-zA-Z])|[(\[])\s*(?P<inside>.*?)\s*(?P<close>\\\}|\\rangle|[)\]])",
    re.DOTALL,
)
BRACKETS = {"\\{": "{", "\\}": "}", "\\langle": "(", "\\rangle": ")"}
BUILDER = re.compile(r"(?P<name>[a-zA-Z])\s*(?:\\in\s*\\mathbb\{R\}\s*)?[|:]\s*(?P<condition>.+)")
MATRIX = re.compile(
    r"\\begin\s*\{([pbB]?matrix|smallmatrix)\}(?P<rows>.*)\\end\s*\{\1\}", re.DOTALL
)
NUMERAL = re.compile(
    r"\(?(?P<digits>-?\d[\dA-Fa-f]*|[A-Fa-f\d]{2,})\)?\s*"
    r"(?:_\s*\{?\s*\(?(?P<base>\d{1,2}|[a-z]{3,7})\)?\s*\}?"
    r"|\(?\s*base\s+(?P<said>\d{1,2}|[a-z]{3,7})\s*\)?)"
)
BASES = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "sixteen": 16, "binary": 2, "octal": 8, "hex": 16,
}  # fmt: skip
ROWED = re.compile(
    r"\d{1,2}\s*[aApP]\.?\s?[mM]\.?|\d+(?:-\d+)+|\d+(?:/\d+){2,}|\d+(?:\.\d+){2,}"
    r"|\d+(?:\.\d+)?(?:\s*:\s*\d+(?:\.\d+)?)+(?:\s*[aApP]\.?\s?[mM]\.?)?"
)
"""Dates, scores, telephone numbers, versions, times and ratios: nothing to be worked out."""
CHOICE = re.compile(
    r"(?:(?:[Oo]ption|[Cc]hoice)\s*)?(?:"
    r"\(\s*([A-J])\s*\)\s*[.:]?\s*(.*)"  # (D) 12
    r"|\(\s*([a-j])\s*\)\s*[.:]?()"
    r"|([A-J])\s*(?:[).](?!\w)|:(?![a-zA-Z]))\s*(.*)"  # D. 12
    r"|([A-J])\s+(\([^()a-zA-Z]*\)))"  # D (12)
    r"|(?:[Oo]ption|[Cc]hoice)\s+([A-Ja-j])\s*(.*)"
    r"|([A-J]) is (?:the )?(?:correct|right)(?: answer| option| choice)?()",
    re.DOTALL,
)
GOES_ON = re.compile(r"[+*/^_=<>!'|]|\\(?!frac|sqrt|pi|text)[a-zA-Z]|-\s*[^\d\s.]")
"""What makes (A) the beginning of a formula."""
RETRACTIONS = frozenset({"or", "actually", "rather", "instead"})
WHOLE_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
EITHER = re.compile(r"(?:\\text\s*\{\s*)?(?:either|both)\s*(?:\}|(?=\s))\s*", re.IGNORECASE)
PERCENT = re.compile(
    r"\s*(?:%\s*(?:\\text\s*\{(?P<remark>[^{}]*)\})?|percent|\\text\s*\{\s*(?:%|percent)\s*\})$"
)
DEGREES = re.compile(
    r"\s*\^?\s*(?:\\circ|\{\s*\\circ\s*\})\s*(?:\\text\s*\{\s*)?([CF]?)(?:\s*\})?$"
)
MONEY = re.compile(rf"(-?)\s*(?:\\text\s*\{{\s*)?({CURRENCY})(?:\s*\}})?\s*(?=[-\d.])")
UNIT_START = re.compile(
    r"\\text\s*\{|(?<![\\A-Za-z_])[^\W\d_]+|\\\$|[€£¥₹¢₽]|\\(?:mu|Omega)(?![a-z])"
)
UNIT_FRACTION = re.compile(
    r"\\frac\s*\{\s*(\\text\s*\{[^{}]*\})\s*\}\s*\{\s*(\\text\s*\{[^{}]*\}(?:\s*\^\s*\{?\d\}?)?)\s*\}$"
)
MULTIPLIED = re.compile(rf"(.*\d)\s*({'|'.join(MULTIPLIERS)})\b(.*)", re.DOTALL)
SPACED = re.compile(r"-?\d{1,3}(?: \d{3})+(?:\.\d+)?")
ZERO_GROUP = re.compile(r"(?<![\d.])\d{1,3}(?: \d{3})*(?: 000)(?: \d{3})*(?![\d ]*\d)")
REALS = frozenset({"\\mathbb{R}", "all real numbers", "all reals", "real numbers"})
EMPTY = frozenset({"\\emptyset", "\\{\\}", "empty set", "the empty set"})
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
PRODUCT = re.compile(r"[a-z]{2,3}")
LETTERS_ONLY = re.compile(r"[^\W\d_](?:[^\W\d_]|[\s'\"]|(?<=[^\W\d_]{3})-(?=[^\W\d_]{3}))+")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number or a formula."""

    node: Node
    unit: Unit | None = None
    is_percent: bool = False


@dataclass(frozen=True, slots=True)
class Sequence:
    """Members and the brackets around them; "" for a bare list, "{}" for a set."""

    items: tuple[Form, ...]
    brackets: str = ""
    joiner: str = ","  # ",", "and" or "or"


@dataclass(frozen=True, slots=True)
class Relation:
    """a = b < c: parts and the signs between them."""

    parts: tuple[Form, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """The letter of an option, and what the option says where that was written too."""

    letter: str
    option: Form | None


@dataclass(frozen=True, slots=True)
class Numeral:
    """Digits in a base that is written beside them."""

    digits: str
    base: int


@dataclass(frozen=True, slots=True)
class Matrix:
    rows: tuple[tuple[Form, ...], ...]


@dataclass(frozen=True, slots=True)
class Joined:
    """A union of sets, or a set without another: (-1, 2) \\cup \\{5\\}."""

    sign: str
    parts: tuple[Form, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """Text, in the spelling in which it is compared."""

    text: str


Form = Scalar | Sequence | Relation | Choice | Numeral | Matrix | Joined | Words


@lru_cache(maxsize=4096)
def read(text: str, *, words: bool = False, thousands: bool = True, nesting: int = 0) -> Form:
    """The form of a cleaned answer.

    Args:
        text: from `answer_text.clean`.
        words: letters in a row are a product, not words.
        thousands: 1,234 is one number; else the two of a list.
        nesting: how many lists this one is inside of.
    """
    again = Again(words=words, thousands=thousands, nesting=nesting + 1)
    text = EITHER.sub("", text.strip(), 1)
    if (whole := WHOLE_TEXT.fullmatch(text)) is not None:
        text = whole[1].strip()
    if text.startswith("{") and group_end(text, 0) == len(text):
        is_set = "," in text and not THOUSANDS.fullmatch(text[1:-1])
        return again(f"\\{{{text[1:-1]}\\}}" if is_set else text[1:-1])
    plain = without_text(text)
    if nesting > MAX_NESTING or not text:
        return Words(as_words(text))
    if (choice := read_choice(text, plain, again)) is not None:
        return choice
    if ROWED.fullmatch(plain) or (LETTERS_ONLY.fullmatch(plain) and is_word(plain, words)):
        return Words(as_words(text))
    if plain in EMPTY or plain.lower() in EMPTY:
        return Sequence((), "{}")
    for attempt in (read_matrix, read_numeral, read_list, read_joined):
        if (form := attempt(text, plain, again)) is not None:
            return form
    for attempt in (read_relation, read_signs, read_enclosed):
        if (form := attempt(text, plain, again)) is not None:
            return form
    return read_scalar(text, words) or Words(as_words(text))


@dataclass(frozen=True, slots=True)
class Again:
    """Reads a part of an answer as the whole is read."""

    words: bool
    thousands: bool
    nesting: int

    def __call__(self, text: str, *, thousands: bool | None = None) -> Form:
        joins = self.thousands if thousands is None else thousands
        return read(text, words=self.words, thousands=joins, nesting=self.nesting)


def is_word(plain: str, words: bool) -> bool:
    if plain.lower() in REALS | EMPTY | {"pi", "infinity"}:
        return False
    letters = plain.split()
    if any(word in FUNCTIONS for word in letters) and all(
        word in FUNCTIONS or len(word) < 3 for word in letters
    ):
        return False  # cos x
    return not words and bool(VOWEL.search(plain)) and SEPARATOR.search(plain) is None


def as_words(text: str) -> str:
    """The spelling in which words are compared: case is left out of words, not of symbols.

    Rows of numbers keep their spaces; a date or a time loses its leading zeros.
    """
    plain = without_text(text)
    if ROWED.fullmatch(plain):
        plain = re.sub(r"(?<![\d.])0+(?=\d)", "", plain) if ":" not in plain else plain.lstrip("0")
        return re.sub(r"[\s.]+(?=[aApPmM]|$)|\s+", "", plain).lower()
    plain = re.sub(r"\s*([,;:()\[\]{}=<>+*/^|_\\-])\s*", r"\1", plain)
    plain = re.sub(r"([_^]|\\[a-zA-Z]+)\{(\w)\}", spelt_argument, plain)
    if "\\" in plain:
        plain = re.sub(r"(\\[a-zA-Z]+) (?=[a-zA-Z])| ", lambda m: f"{m[1]} " if m[1] else "", plain)
    return re.sub(r"(?<!\\)[^\W\d_]{2,}", folded, plain).strip("'\"` .!?")


def spelt_argument(match: re.Match[str]) -> str:
    """x^{2} as x^2, \\pmod{5} as \\pmod 5."""
    is_letter = match[1].startswith("\\") and match[2].isalpha()
    return f"{match[1]} {match[2]}" if is_letter else f"{match[1]}{match[2]}"


def folded(match: re.Match[str]) -> str:
    """Words without their case; AB is no word, but the name of a line."""
    word = match.group()
    is_name = len(word) == 2 and word.lower() not in SHORT_WORDS
    return word if is_name else word.casefold()


def read_matrix(text: str, plain: str, again: Again) -> Form | None:
    match = MATRIX.fullmatch(text)
    if match is None:
        return None
    rows = [row for row in LINE_END.split(match["rows"]) if row.strip()]
    return Matrix(tuple(tuple(again(cell.strip()) for cell in row.split("&")) for row in rows))


def read_numeral(text: str, plain: str, again: Again) -> Form | None:
    match = NUMERAL.fullmatch(plain)
    if match is None:
        return None
    named = match["base"] or match["said"]
    base = int(named) if named.isdigit() else BASES.get(named.lower(), 0)
    if base < 2 or base > 36 or (base <= 10 and not match["digits"].lstrip("-").isdigit()):
        return None
    return Numeral(match["digits"].upper().lstrip("0") or "0", base)


def read_choice(text: str, plain: str, again: Again) -> Form | None:
    match = CHOICE.fullmatch(plain)
    if match is None:
        return None
    letter = next(group for group in match.groups()[::2] if group is not None)
    rest = next(group for group in match.groups()[1::2] if group is not None).strip()
    if re.fullmatch(r"(?:is\s+)?(?:correct|right)?", rest, re.IGNORECASE):
        return Choice(letter, None)
    said = re.findall(r"[a-z']+", rest.lower())
    if RETRACTIONS & set(said) or said[:1] == ["is"]:
        return None  # (A) or rather (B)
    option = again(rest)
    if (
        SEPARATOR.match(rest)
        or GOES_ON.match(rest)
        or isinstance(option, Choice)
        or re.fullmatch("[A-J]", rest)
    ):
        return None  # (A) or (B)
    return Choice(letter, option)


def split_top(text: str, pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    """[(separator before, piece)], split where the pattern matches outside all brackets."""
    pieces: list[tuple[str, str]] = []
    separator, start, position, depth = "", 0, 0, 0
    while position < len(text):
        match = pattern.match(text, position) if depth == 0 else None
        if match is not None and match.end() > position:
            pieces.append((separator, text[start:position]))
            separator, start = match.group(), match.end()
            position = start
        elif (bracket := OPENING.match(text, position)) is not None:
            depth, position = depth + 1, bracket.end()
        elif (bracket := CLOSING.match(text, position)) is not None:
            depth, position = max(depth - 1, 0), bracket.end()
        else:
            position += 2 if text.startswith("\\", position) else 1
    return [*pieces, (separator, text[start:])]


def join_thousands(text: str) -> str:
    """1,234 without its comma, outside of brackets; 1, 234 and (1,234) are two numbers."""

    def joined(match: re.Match[str]) -> str:
        before = text[: match.start()]
        depth = len(re.findall(r"\\\{|[(\[]", before)) - len(re.findall(r"\\\}|[)\]]", before))
        return match.group() if depth > 0 else match.group().replace(",", "")

    return THOUSANDS.sub(joined, text) if "," in text else text


def read_list(text: str, plain: str, again: Again) -> Form | None:
    """A bare list. One word in it makes all of it words, whose order counts."""
    pieces = split_top(join_thousands(text) if again.thousands else text, SEPARATOR)
    if len(pieces) == 1:
        return None
    items = [again(piece.strip(), thousands=False) for _, piece in pieces if piece.strip()]
    if len(items) > 1 and pieces[-1][0].strip() == "," and is_declaration(items[-1]):
        items = items[:-1]  # 2k\\pi, k \\in \\mathbb{Z}
        if len(items) == 1:
            return items[0]
    if len(items) < 2 or any(
        isinstance(item, Words) and not ROWED.fullmatch(item.text) for item in items
    ):
        return Words(as_words(text))
    separators = " ".join(separator for separator, _ in pieces)
    joiner = "or" if re.search(r"\bor\b|lor", separators) else ","
    return Sequence(flat(items), "", "and" if re.search(r"\band\b|land", separators) else joiner)


def is_declaration(form: Form) -> bool:
    """k \\in \\mathbb{Z} says what kind of number k is."""
    if not isinstance(form, Relation) or form.signs != ("\\in",):
        return False
    last = form.parts[1]
    return isinstance(last, Scalar) and last.node.name in ("mathbb Z", "mathbb N")


def flat(items: list[Form]) -> tuple[Form, ...]:
    """Bare lists within a list are part of it: \\pm 1, 3 are three numbers."""
    members: list[Form] = []
    for item in items:
        bare = isinstance(item, Sequence) and not item.brackets
        members.extend(item.items if bare and isinstance(item, Sequence) else [item])
    return tuple(members)


def read_joined(text: str, plain: str, again: Again) -> Form | None:
    pieces = split_top(text, SET_SIGNS)
    if len(pieces) == 1 or not all(piece.strip() for _, piece in pieces):
        return None
    signs = {"cup" if "cup" in sign else "minus" for sign, _ in pieces[1:]}
    if len(signs) > 1 or (signs == {"minus"} and len(pieces) > 2):
        return None
    return Joined(signs.pop(), tuple(again(piece) for _, piece in pieces))


def read_relation(text: str, plain: str, again: Again) -> Form | None:
    """Two signs side by side, as in n \\ge = 12, are no relation but words."""
    pieces = split_top(text, SIGNS)
    if len(pieces) == 1 or not all(piece.strip() for _, piece in pieces):
        return None
    parts = tuple(read_side(piece.strip(), again) for _, piece in pieces)
    return Relation(parts, tuple(sign for sign, _ in pieces[1:]))


def read_side(text: str, again: Again) -> Form:
    """One side of a relation: ab = 20 is about a product, AB = 20 about a line."""
    return as_product(again(text), text)


def as_product(form: Form, text: str) -> Form:
    """Words that are rather a product of letters, where mathematics is expected."""
    is_product = PRODUCT.fullmatch(text) is not None or (text in ALPHABET and len(text) > 1)
    return read(text, words=True) if isinstance(form, Words) and is_product else form


def read_signs(text: str, plain: str, again: Again) -> Form | None:
    """1 \\pm x is the list of 1 + x and 1 - x."""
    if "\\pm" not in text and "\\mp" not in text:
        return None
    upper = text.replace("\\pm", "+").replace("\\mp", "-")
    lower = text.replace("\\pm", "-").replace("\\mp", "+")
    items = [again(half.strip().removeprefix("+").strip()) for half in (upper, lower)]
    if any(isinstance(item, Words) for item in items):
        return None
    return Sequence(tuple(items), "", "or")


def read_enclosed(text: str, plain: str, again: Again) -> Form | None:
    """(1, 2), [1, 2], \\{1, 2\\}, (1, 2], \\{x | x > 2\\}; (5) is 5."""
    match = ENCLOSED.fullmatch(text)
    if match is None or not closes_last(text):
        return None
    brackets = "".join(BRACKETS.get(match[side], match[side]) for side in ("open", "close"))
    inside = match["inside"]
    if brackets == "{}" and (builder := BUILDER.fullmatch(inside)) is not None:
        return again(builder["condition"])
    spaced = re.search(r",\s", inside) is not None
    pieces = [
        p.strip() for _, p in split_top(join_thousands(inside) if spaced else inside, SEPARATOR)
    ]
    items = [again(piece, thousands=False) for piece in pieces if piece]
    if len(items) == 1 and brackets == "()":
        return items[0] if not isinstance(items[0], Scalar) else None
    if not items or (brackets not in ("()", "[]", "{}") and len(items) != 2):
        return None
    if len(items) == 1 and brackets == "[]" and is_formula(items[0]):
        return None  # [(x+1)(x+2)] is a product
    return Sequence(tuple(items), brackets)


def is_formula(form: Form) -> bool:
    return isinstance(form, Scalar) and form.node.kind not in ("number", "negate")


def closes_last(text: str) -> bool:
    """Is the bracket that opens first the one that closes last? Not in (1,2)(3,4)."""
    depth = position = 0
    while position < len(text):
        if (bracket := OPENING.match(text, position)) is not None:
            depth, position = depth + 1, bracket.end()
        elif (bracket := CLOSING.match(text, position)) is not None:
            depth, position = depth - 1, bracket.end()
            if depth == 0:
                return position == len(text)
        else:
            position += 2 if text.startswith("\\", position) else 1
    return False


def read_scalar(text: str, words: bool) -> Scalar | None:
    """A formula, with the currency before it or the unit behind it."""
    text = ZERO_GROUP.sub(lambda match: match.group().replace(" ", ""), join_thousands(text))
    if (match := MONEY.match(text)) is not None:
        amount = read_scalar(f"{match[1]}{text[match.end() :]}", words)
        currency = read_unit(re.sub(r"[A-Z\s]+(?=\\\$)", "", match[2]))
        return None if amount is None else Scalar(amount.node, amount.unit or currency)
    for pattern in (PERCENT, DEGREES):
        if (match := pattern.search(text)) is not None and match.start() > 0:
            node = read_expression(text[: match.start()].strip(), words=words)
            if node is None:
                return None
            if pattern is PERCENT:
                is_plain = is_remark(match["remark"] or "")
                return Scalar(node, is_percent=True) if is_plain else None
            return Scalar(node, read_unit(f"degree {match[1]}".strip()))
    node = read_expression(text.strip(), words=words)
    if node is not None and literal_value(node) is not None:
        return Scalar(node)
    if (found := read_with_unit(UNIT_FRACTION.sub(r"\1/\2", text), words)) is not None:
        return found
    return read_multiplied(text, words) if node is None else Scalar(node)


def read_multiplied(text: str, words: bool) -> Scalar | None:
    """3 million, 2.5 thousand dollars."""
    match = MULTIPLIED.fullmatch(without_text(text))
    node = None if match is None else read_expression(match[1].strip(), words=words)
    value = None if node is None else literal_value(node)
    if match is None or value is None:
        return None
    rest = match[3].strip()
    unit = read_unit(rest) if rest else None
    if rest and unit is None:
        return None
    return Scalar(Node("number", value=value * MULTIPLIERS[match[2]]), unit)


def read_with_unit(text: str, words: bool) -> Scalar | None:
    """A formula and the unit behind it, split at the first place where both can be read.

    Words outside of \\text{} are a unit behind a number; behind another constant they have to be
    the sign of one, and behind a formula with symbols they are symbols too.
    """
    for match in UNIT_START.finditer(text):
        head, tail = text[: match.start()], text[match.start() :]
        if not head.strip() or len(tail) > MAX_UNIT_CHARS:
            continue
        unit = read_unit(without_text(tail).strip())
        node = read_expression(head.strip(), words=words) if unit else None
        if unit is None or node is None:
            continue
        if not match.group()[0].isalpha():
            return Scalar(node, unit)
        is_number = literal_value(node) is not None
        has_symbols = any(part.kind == "symbol" for part in node.walk())
        is_sign = not unit.is_counted and len(match.group()) > 1 and not has_symbols
        if is_bare_unit(match.group(), head[-1:].isspace()) and (is_number or is_sign):
            return Scalar(node, unit)
    return None
