"""Answers as text: one spelling for what LaTeX writes in many ways, and plain numbers.

All of this is string work with exact arithmetic; math-verify is for what is left over.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal

AnswerKind = Literal["number", "text", "math"]

MAX_NUMBER_CHARS = 200  # int() of longer strings is slow and, above 4300 digits, refused
MAX_EXPONENT = 300  # 1e300; the exact value of a larger one would fill the memory

SPELLINGS = str.maketrans(
    {
        "\u2212": "-",  # minus sign
        "\u2013": "-",  # en dash
        "\uff0c": ",",
        "\u3002": ".",
        "\u00a0": " ",
        "\u202f": " ",
        "\u2009": " ",
        "\u00d7": "\\times ",
        "\u22c5": "\\cdot ",
        "\u00b7": "\\cdot ",
        "\u00f7": "\\div ",
        "\u2044": "/",
        "\u03c0": "\\pi ",
        "\u221e": "\\infty ",
        "\u00b0": "^\\circ ",
    }
)
SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle)(?![a-zA-Z])")
SPACES = re.compile(r"\\[,;:!> ]|~|\\q?quad(?![a-zA-Z])|\s+")
FRACTIONS = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|texttt|mathrm|mathbf|mathit|mathsf|mathtt|mbox|boxed|fbox"
    r"|operatorname)\s*\{([^{}]*)\}"
)
THOUSANDS = re.compile(r"(?<![\d.])[+-]?\d{1,3}(?:(?:,|\{,\}|\\,)\s?\d{3})+(?!\d)(?:\.\d+)?")
AROUND_PUNCTUATION = re.compile(r"\s*([,;:()\[\]{}=<>+*/^|-])\s*")

INTEGER = r"\d+"
DECIMAL = r"(?:\d+\.?\d*|\.\d+)"
NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:"
    rf"(?P<mantissa>{DECIMAL})"
    rf"(?:[eE](?P<exponent>[+-]?\d+)"
    rf"|\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?P<braced_power>\{{\s*[+-]?\d+\s*\}}|-?\d+))?"
    rf"|10\s*\^\s*(?P<power_of_ten>\{{\s*[+-]?\d+\s*\}}|-?\d+)"
    rf"|(?P<over>{DECIMAL})\s*/\s*(?P<under>{DECIMAL})"
    rf"|\\frac\s*(?:\{{\s*(?P<top>-?{DECIMAL})\s*\}}|(?P<top_digit>\d))"
    rf"\s*(?:\{{\s*(?P<bottom>-?{DECIMAL})\s*\}}|(?P<bottom_digit>\d))"
    rf")"
)
LETTERS = re.compile(r"[^\W\d_]{2,}")
OPERATORS = re.compile(r"[\\+*/^=<>(){}\[\]|]")


def tidy(answer: str) -> str:
    """One spelling of an answer: no $ signs, sizes, odd spaces, \\text{} or final full stop."""
    text = answer.translate(SPELLINGS)
    text = THOUSANDS.sub(lambda match: re.sub(r"[^\d.+-]", "", match.group()), text)
    text = text.replace("\\$", "").replace("$", "").replace("**", "^")
    text = re.sub(r"\\[()\[\]]", " ", text)  # \( ... \) and \[ ... \]
    text = FRACTIONS.sub(r"\\frac", SIZES.sub(" ", text))
    text = SPACES.sub(" ", WRAPPER.sub(r"\1", text)).strip()
    while text and text[-1] in ".,;:" and not text.endswith("\\"):
        text = text[:-1].rstrip()
    return text


def key(tidied: str) -> str:
    """What two answers that are the same text have in common: case and spacing left out."""
    text = AROUND_PUNCTUATION.sub(r"\1", tidied).casefold()
    return text.strip("'\"`\u2018\u2019\u201c\u201d ")


def plain_number(tidied: str) -> Fraction | None:
    """The exact value of an integer, decimal, fraction or power-of-ten form; else None.

    Thousands separators are gone after `tidy`. Arithmetic that is still to be done, such as
    3+4, is not a plain number.
    """
    if len(tidied) > MAX_NUMBER_CHARS:
        return None
    match = NUMBER.fullmatch(tidied.strip())
    if match is None:
        return None
    value = unsigned_value(match)
    if value is None:
        return None
    return -value if match["sign"] == "-" else value


def unsigned_value(match: re.Match[str]) -> Fraction | None:
    """The value of a match of NUMBER without its sign; None for x/0 and absurd exponents."""
    if match["mantissa"] is not None:
        power = match["exponent"] or match["braced_power"] or "0"
        return scaled(Fraction(match["mantissa"]), power)
    if match["power_of_ten"] is not None:
        return scaled(Fraction(1), match["power_of_ten"])
    top = Fraction(match["over"] or match["top"] or match["top_digit"])
    bottom = Fraction(match["under"] or match["bottom"] or match["bottom_digit"])
    return top / bottom if bottom else None


def scaled(mantissa: Fraction, power: str) -> Fraction | None:
    exponent = int(power.strip("{} "))
    if abs(exponent) > MAX_EXPONENT:
        return None
    return mantissa * Fraction(10) ** exponent


def is_division(tidied: str) -> bool:
    """Is this number written as a division (14/2), rather than as its result?"""
    return "/" in tidied or "\\frac" in tidied


def kind_of(reference: str) -> AnswerKind:
    """How a tidied reference answer wants to be compared.

    Words are text: as products of letters, `olleh` and `hello` are equal to a computer
    algebra system. So are times and ratios (12:30) and numbers in a row (1 2 3), which it
    reads as a quotient and a product.
    """
    if plain_number(reference) is not None:
        return "number"
    if OPERATORS.search(reference):
        quoted = any(mark in reference for mark in "'\"")
        return "text" if quoted else "math"
    if LETTERS.search(reference) or ":" in reference or re.search(r"\d\s+-?\d", reference):
        return "text"
    return "math"
