"""Units behind (or before) a number: 18\\text{ cm}, 5 m/s, $25, 42 apples.

A unit is a bag of names with powers, so that `km/h`, `kilometers per hour` and `km h^{-1}` are
the same one. There is no conversion: 100 cm is not 1 m, because the question states the unit. Words
that are not units of measurement are counted things, compared by their last word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from rewards.spellings import FUNCTIONS, OTHER_FUNCTIONS, word_set

ALIASES = {
    "m": "meter metre", "cm": "centimeter centimetre", "mm": "millimeter millimetre",
    "km": "kilometer kilometre kms", "nm": "nanometer nanometre", "in": "inch inche",
    "ft": "foot feet", "yd": "yard", "mi": "mile",
    "g": "gram gramme gm", "kg": "kilogram kilo kgs", "mg": "milligram", "lb": "pound lbs",
    "oz": "ounce", "ton": "tonne",
    "s": "second sec", "min": "minute", "h": "hour hr", "day": "", "wk": "week", "mo": "month",
    "yr": "year", "ms": "millisecond",
    "L": "liter litre l", "mL": "milliliter millilitre ml", "gal": "gallon", "qt": "quart",
    "pt": "pint", "cup": "",
    "N": "newton", "J": "joule", "kJ": "kilojoule", "W": "watt", "kW": "kilowatt", "V": "volt",
    "A": "ampere amp", "K": "kelvin", "Pa": "pascal", "kPa": "kilopascal", "Hz": "hertz",
    "mol": "mole", "C": "coulomb celsius", "F": "fahrenheit", "T": "tesla", "eV": "electronvolt",
    "cal": "calorie", "rad": "radian", "degree": "deg", "M": "molar", "ohm": "\\Omega", "B": "byte",
    "kB": "kilobyte", "MB": "megabyte", "GB": "gigabyte",
    "dollar": "usd us\\$ \\$ buck", "euro": "eur €", "pound sterling": "gbp £", "cent": "¢",
    "yen": "jpy ¥ yuan", "rupee": "inr ₹ rs", "peso": "php ₱", "won": "₩",
    "unit": "", "percent": "pct percentage",
}  # fmt: skip
COMPOUND = {
    "mph": {"mi": 1, "h": -1}, "kmh": {"km": 1, "h": -1}, "kph": {"km": 1, "h": -1},
    "kmph": {"km": 1, "h": -1}, "fps": {"ft": 1, "s": -1}, "sqft": {"ft": 2}, "cc": {"cm": 3},
    "rpm": {"revolution": 1, "min": -1},
}  # fmt: skip
NAMES = {alias: name for name, line in ALIASES.items() for alias in (name, *line.split())}
AREA = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
CURRENCY_SIGNS = "€£¥₹₩₱₽₺₫₦฿₪"
CURRENCY = (
    rf"(?:[A-Z]{{0,2}}\s?\\\$|USD|EUR|GBP|CAD|AUD|CHF|JPY|CNY|INR|Rs\.?|kr|[{CURRENCY_SIGNS}])"
)
NO_UNITS = word_set(
    "and or not no nor but either neither if when where is are was be isn't aren't than more less "
    "least most at over under below above minus plus divided by to from mod modulo equals "
    "half halves third thirds quarter fourth fourths fifth fifths sixth sixths seventh sevenths "
    "eighth eighths ninth ninths tenth tenths hundredth hundredths thousandth thousandths "
    "squared cubed factorial choose wrong false incorrect maybe perhaps except without "
    "st nd rd th hundred thousand million billion trillion dozen percent pct"
)
MULTIPLIERS = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
MATHEMATICS = (FUNCTIONS | OTHER_FUNCTIONS | {"pi", "mod"}) - {"min"}
PIECE = re.compile(
    r"(?P<word>[^\W\d_]+(?:[-'][^\W\d_]+)*\.?|\\\$|[¢€£¥₹₩₱₽₺₫₦฿₪]|\\Omega|\\mu\s*[a-z]+)"
    r"|\^\s*(?P<power>\{\s*-?\d\s*\}|-?\d)"
    r"|(?P<sign>[/*]|\\cdot(?![a-zA-Z])|\\times(?![a-zA-Z])|\(|\))"
    r"|(?P<space>\s+)"
)


@dataclass(frozen=True, slots=True)
class Unit:
    """Names with their powers, and the words as they were written."""

    powers: frozenset[tuple[str, int]]
    words: tuple[str, ...]
    is_counted: bool  # things, not a unit of measurement

    def is_same(self, other: Unit) -> bool:
        """Counted things may have adjectives: 42 red apples are 42 apples."""
        if self.powers == other.powers:
            return True
        is_row = all(power == 1 for _, power in self.powers | other.powers)
        if not (self.is_counted and other.is_counted and is_row):
            return False
        fewer, more = sorted((self.words, other.words), key=len)
        return fewer[-1] == more[-1] and set(fewer) <= set(more)


@lru_cache(maxsize=4096)
def read_unit(text: str) -> Unit | None:
    """The unit that a piece of text is, without any \\text{}; None if it is none."""
    powers: dict[str, int] = {}
    words: list[str] = []
    position, direction, pending, last = 0, 1, 1, ""
    while position < len(text):
        match = PIECE.match(text, position)
        if match is None:
            return None
        position = match.end()
        if match["power"]:
            if not last:
                return None
            powers[last] = powers[last] * int(match["power"].strip("{} "))
        elif match["sign"] == "/":
            direction = -1
        elif match["word"]:
            word = match["word"].rstrip(".")
            lowered = word.lower()
            if lowered == "per" or (lowered in ("a", "an", "each") and words):
                direction = -1 if lowered == "per" else direction
            elif lowered in AREA and (lowered not in ("squared", "cubed") or last):
                if lowered in ("squared", "cubed"):
                    powers[last] *= AREA[lowered]
                else:
                    pending = AREA[lowered]
            elif lowered in NO_UNITS and not (lowered == "percent" and words):
                return None
            elif lowered in ("of", "the", "in", "total", "altogether", "exactly", "only") and words:
                if not is_remark(text[position:]):
                    return None
                break  # 3 cups of sugar, 20 dollars in total
            elif len(word) == 1 and word.isascii() and word.isalpha() and word not in NAMES:
                return None  # a symbol: \frac{1}{2} g t
            else:
                for name, power in unit_powers(word).items():
                    powers[name] = powers.get(name, 0) + power * direction * pending
                    last = name
                words.append(singular(lowered))
                pending = 1
    if not words or len(words) > 5:
        return None
    known = all(word.rstrip(".") in KNOWN or singular(word.lower()) in KNOWN for word in words)
    return Unit(frozenset(powers.items()), tuple(words), not known)


def is_remark(text: str) -> bool:
    """Plain words that take nothing back."""
    words = text.lower().split()
    return all(word.isalpha() for word in words) and not NO_UNITS & set(words)


def unit_powers(word: str) -> dict[str, int]:
    """The names that one word stands for: mph is miles per hour."""
    lowered = word.lower()
    if lowered in COMPOUND:
        return COMPOUND[lowered]
    for spelling in (word, lowered, singular(lowered)):
        if spelling in NAMES:
            return {NAMES[spelling]: 1}
    return {singular(lowered): 1}


def singular(word: str) -> str:
    """A rough singular; it need only be the same for both answers."""
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + instead
    return word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith("ss") else word


VOWEL = re.compile("[aeiouy]", re.IGNORECASE)
MAX_PRODUCT = 4  # letters that may stand for a product: 2xyz
KNOWN = frozenset(NAMES) | frozenset(COMPOUND)


def is_bare_unit(first_word: str, has_space: bool) -> bool:
    """May a word behind a formula be a unit although it is not in \\text{}?

    One letter is a symbol unless it is the sign of a unit and stands apart: 5 m, but 5x.
    """
    word = first_word.rstrip(".")
    if word.lower() in MATHEMATICS:
        return False
    if len(word) == 1:
        return has_space and word in NAMES
    if word in NAMES or word.lower() in KNOWN or singular(word.lower()) in KNOWN | AREA.keys():
        return True
    return (has_space or len(word) > MAX_PRODUCT) and bool(VOWEL.search(word))
