"""One spelling for what Unicode, LaTeX and Markdown write in many ways. String work only.

`clean` gives the spelling that `rewards.answer_forms` reads; units stay in their \\text{}.
`tidy` and `key` only decide whether two answers are the same text.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

from rewards.boxed import group_end
from rewards.spellings import (
    CHARACTERS,
    COLOURED,
    DROPPED,
    FUNCTIONS,
    GREEK,
    LOWERED,
    MATH_FONTS,
    OTHER_FUNCTIONS,
    RAISED,
    ROOTS,
    SYNONYMS,
    TEXT_FONTS,
)

MAX_NUMBER_CHARS = 200  # int() of longer strings is slow and, above 4300 digits, refused
MAX_EXPONENT = 300  # 1e300; votes and pairs ask for no larger one

RAISED_RUN = re.compile(f"[{''.join(RAISED)}]+")
LOWERED_RUN = re.compile(f"[{''.join(LOWERED)}]+")
ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?|[^\W\d_])?")
OVERLINED = re.compile("((?:\\d\u0305)+)")

COMMAND = re.compile(r"\\([a-zA-Z]+)(?![a-zA-Z])\s?")
ESCAPED = re.compile(r"\\([_%&#])")
NEGATED = re.compile(r"\\not\s*(=|\\in(?![a-zA-Z])|<|>)")
NEGATIONS = {"=": "\\ne ", "\\in": "\\notin ", "<": "\\ge ", ">": "\\le "}
TYPED_RELATIONS = (("<=", "\\le "), (">=", "\\ge "), ("!=", "\\ne "), ("=/=", "\\ne "))
SPACES = re.compile(r"(?<!\\)\\[,;:!> \n]|~|\s+")  # not the end of a row, \\\\
LATEX_GROUPS = re.compile(
    r"(?<![\d.])\d{1,3}(?:(?:\{,\}|\\,|\\ |\\;|\\:|~|,\\!|\\!,|\\!|'|_)\s?\d{3})+(?!\d)"
)
BRACED_MARK = re.compile(r"\{([,:;])\}")
THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
TAG = re.compile(r"</?(?:b|i|u|em|strong|span|p|div|code)>")
INVISIBLE = re.compile(
    r"\\q?quad(?=\s*\\(?:text|mathrm)(?![a-zA-Z]))|\\(?:left|right)\s*\.|\\boldmath(?![a-zA-Z])|(?<=color)\[\w+\]"
)
FRACTION_OF_PLAIN_TEX = re.compile(r"\{([^{}]*)\\(over|choose)(?![a-zA-Z])([^{}]*)\}")
DOTTED = re.compile(r"\\dot\s*\{?(\d)\}?(\d*)\\dot\s*\{?(\d)\}?")
SAID_TIMES = re.compile(r"(?<=\d)\s*\\text\s*\{\s*[xX]\s*\}\s*(?=10\s*\^)")
JOINED_UNIT = re.compile(r"(?<=\d)\s*\\text\s*\{([^{}]*?[a-z])\s+(and|or)\s*\}")
RAISED_DEGREE = re.compile(r"\^\s*\{?\s*\^\\circ\s*\}?")
AROUND = re.compile(
    r"^(?:=|:|\\(?:approx|Rightarrow|Longrightarrow|implies|therefore|to)(?![a-zA-Z]))\s*"
    r"|\s*(?:\\\\|\\(?:checkmark|qed|blacksquare|square|newline)(?![a-zA-Z]))$"
)
BRACKETED_ARRAY = re.compile(
    r"(?:\\left\s*)?[(\[]\s*\\begin\s*\{(?:array|matrix)\}(?:\s*\{[lcr|\s]*\})?(.*?)"
    r"\\end\s*\{(?:array|matrix)\}\s*(?:\\right\s*)?[)\]]",
    re.DOTALL,
)
ENVIRONMENT = re.compile(
    r"\\(?:begin|end)\s*\{(aligned|align|alignat|gathered|gather|split|equation|cases|array|center)"
    r"\*?\}(?:\s*\{[lcr|\s\d]*\})?"
)
LINE_END = re.compile(r"\\\\(?:\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm|in)\s*\])?")  # \\[2pt]
TIMES_TEN = re.compile(r"(?<=\d)\s*[xX*]\s*(?=10\s*(?:\^|\*\*))")
MARKS = ("**", "__", "```", "`", '"', "''", "'", "*")
LABEL = re.compile(
    r"^(\\text\s*\{)?\s*(?:so\s+|thus\s+|hence\s+)?(?:the\s+)?(?:final\s+|correct\s+)?"
    r"(?:answer|result)\s*(?:is|=|:)\s*:?\s*",
    re.IGNORECASE,
)

AROUND_PUNCTUATION = re.compile(r"\s*([,;:()\[\]{}=<>+*/^|-])\s*")


@lru_cache(maxsize=1024)
def clean(answer: str) -> str:
    """The answer in one spelling, with words still in \\text{}."""
    text = digit_groups(TAG.sub("", INVISIBLE.sub("", spell(answer))))
    text = unwrap(strip_dollars(strip_marks(BRACED_MARK.sub(r"\1", text).strip())))
    text = one_command_each(lines_as_list(text))
    text = ESCAPED.sub(r"\1", TIMES_TEN.sub(r"\\times ", text)).replace("**", "^")
    text = LABEL.sub(lambda match: match[1] or "", strip_marks(SPACES.sub(" ", text).strip()), 1)
    text = strip_punctuation(unwrap(text).strip())
    return re.sub(r"\s+", " ", strip_marks(text)).strip()


def digit_groups(text: str) -> str:
    """1{,}000 as 1000; matrices in arrays as matrices, whose rows are no groups of digits."""
    text = BRACKETED_ARRAY.sub(r"\\begin{pmatrix}\1\\end{pmatrix}", text)
    return LATEX_GROUPS.sub(lambda match: re.sub(r"\D", "", match.group()), text)


def lines_as_list(text: str) -> str:
    """The lines of `aligned` and its like, joined by commas."""
    if ENVIRONMENT.search(text) is None:
        return text
    return LINE_END.sub(",", ENVIRONMENT.sub(" ", text)).replace("&", "")


def one_command_each(text: str) -> str:
    """Every relation, fraction, dot and degree sign by one command."""
    for typed, command in TYPED_RELATIONS:
        text = text.replace(typed, command)
    text = NEGATED.sub(lambda match: NEGATIONS[match[1]], text)
    text = FRACTION_OF_PLAIN_TEX.sub(plain_tex, DOTTED.sub(r"\\overline{\1\2\3}", text))
    text = RAISED_DEGREE.sub(r"^\\circ ", COMMAND.sub(synonym, text))
    text = SAID_TIMES.sub(r"\\times ", text)
    return JOINED_UNIT.sub(r"\\text{\1} \\text{ \2 }", text)


def tidy(answer: str) -> str:
    """One spelling of an answer as plain text: no wrappers, currency or thousands separators."""
    text = THOUSANDS.sub(lambda match: match.group().replace(",", ""), without_text(clean(answer)))
    return strip_punctuation(text.replace("\\$", "").strip())


def key(tidied: str) -> str:
    """What two answers that are the same text have in common: case and spacing left out."""
    return AROUND_PUNCTUATION.sub(r"\1", tidied).casefold().strip("'\"` ")


def plain_number(tidied: str) -> Fraction | None:
    """The exact value of an integer, decimal, fraction or power-of-ten form; else None.

    Thousands separators are gone after `tidy`. Arithmetic that is still to be done, such as
    3+4, is not a plain number; nor is one too large to write out.
    """
    from rewards.expression import literal_value, read_expression

    if len(tidied) > MAX_NUMBER_CHARS:
        return None
    node = read_expression(tidied)
    value = None if node is None else literal_value(node)
    if value is None or max(abs(value.numerator), value.denominator) > 10**MAX_EXPONENT:
        return None
    return value


def without_text(cleaned: str) -> str:
    """A cleaned answer with the words taken out of their \\text{}."""
    return re.sub(r"\s+", " ", unwrap(cleaned, keep_text=False)).strip()


def spell(text: str) -> str:
    """Unicode as LaTeX or ASCII; marks of no width are dropped."""
    if text.isascii():
        return text
    text = RAISED_RUN.sub(lambda match: f"^{{{translated(match, RAISED)}}}", text)
    text = LOWERED_RUN.sub(lambda match: f"_{{{translated(match, LOWERED)}}}", text)
    text = OVERLINED.sub(lambda m: f"\\overline{{{m[1].replace(chr(0x305), '')}}}", text)
    text = ROOT.sub(lambda m: ROOTS[m[1]] + (f"{{{m[2]}}}" if m[2] else " "), text)
    return "".join(character if character.isascii() else spelt(character) for character in text)


def translated(match: re.Match[str], table: dict[str, str]) -> str:
    return "".join(table[character] for character in match.group())


def spelt(character: str) -> str:
    """One character beyond ASCII as LaTeX or ASCII, or itself."""
    if character in CHARACTERS:
        return CHARACTERS[character]
    if unicodedata.category(character) == "Cf":
        return ""  # zero-width space, word joiner, byte order mark, direction marks
    name = unicodedata.name(character, "")
    script, _, letter = name.replace("LAMDA", "LAMBDA").rpartition(" LETTER ")
    if script in ("GREEK SMALL", "GREEK CAPITAL") and letter.lower() in GREEK:
        return f"\\{letter.lower() if script == 'GREEK SMALL' else letter.capitalize()} "
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    plain = unicodedata.normalize("NFKC", character)
    over, bar, under = plain.partition("\u2044")
    if bar and over.isdigit() and under.isdigit():
        return f"\\frac{{{over}}}{{{under}}}"
    if plain == character:
        return character
    return "".join(c if c.isascii() or c == character else spelt(c) for c in plain)


def synonym(match: re.Match[str]) -> str:
    """The command that stands for this one; itself where there is none."""
    known = SYNONYMS.get(match[1])
    return match.group() if known is None else known


def plain_tex(match: re.Match[str]) -> str:
    """{1 \\over 2} as \\frac{1}{2}, {5 \\choose 2} as \\binom{5}{2}."""
    command = "\\frac" if match[2] == "over" else "\\binom"
    return f"{command}{{{match[1].strip()}}}{{{match[3].strip()}}}"


def strip_dollars(text: str) -> str:
    """Without the $ of formulas and \\( \\) \\[ \\]; a $ before an amount becomes \\$."""
    text = re.sub(r"(?<!\\)\\[()\[\]]", " ", text)
    signs = [match.start() for match in re.finditer(r"(?<!\\)\$", text)]
    if len(signs) % 2 == 1 and re.match(r"\s*-?\s*\d", text[signs[0] + 1 :]):
        text = f"{text[: signs[0]]}\\${text[signs[0] + 1 :]}"
    return re.sub(r"(?<!\\)\$", " ", text)


def strip_marks(text: str) -> str:
    """Without the quotation marks and Markdown that enclose the whole."""
    for mark in MARKS:
        inner = text[len(mark) : -len(mark)]
        if text.startswith(mark) and text.endswith(mark) and inner.strip() and mark not in inner:
            return strip_marks(inner.strip())
    return text


def strip_punctuation(text: str) -> str:
    """Without the full stop or comma behind it, or the = before it."""
    while text and text[-1] in ".,;:" and not text.endswith(("\\", "...")):
        text = text[:-1].rstrip()
    return AROUND.sub("", text.lstrip(", "))


def unwrap(text: str, *, keep_text: bool = True) -> str:
    """Without fonts, colours and boxes; every command for words becomes \\text{}."""
    position = 0
    while (match := COMMAND.search(text, position)) is not None:
        name, end = match[1], group_end(text, match.end())
        if end is None or name not in MATH_FONTS | TEXT_FONTS | COLOURED | DROPPED:
            position = match.start() + 1
            continue
        content = text[match.end() + 1 : end - 1]
        if name in COLOURED and content and (second := group_end(text, end)) is not None:
            content, end = text[end + 1 : second - 1], second
        before = text[: match.start()]
        if name in TEXT_FONTS and keep_text and not is_mathematics(name, content):
            inside = unwrap(content.replace("$", ""), keep_text=False).strip()
            leading_space = " " if content[:1].isspace() else ""
            middle = f"\\text{{{leading_space}{inside}}}"
            position = len(before) + len(middle)
        else:
            middle = inner_mathematics(name, content, before)
            position = len(before)
        text = f"{before}{middle}{text[end:]}"
    return text


def is_mathematics(name: str, content: str) -> bool:
    """Is this no word at all: a number, a symbol, a function's name, a formula in text?"""
    word = content.strip()
    if word in FUNCTIONS | OTHER_FUNCTIONS or (
        name in ("mathrm", "operatorname") and word in "eid"
    ):
        return True
    if len(word) == 1 and word.isupper():
        return True
    letters = re.sub(r"\\[a-zA-Z]+", "", word)
    if not re.search(r"[^\W\d_]", letters):
        return True
    return "\\" in word and not re.search(r"[^\W\d_]{2}", letters)


def inner_mathematics(name: str, content: str, before: str) -> str:
    if name in DROPPED:
        return " "
    content = content.replace("$", "")
    if content.strip() in FUNCTIONS | OTHER_FUNCTIONS:
        return f"\\{content.strip()} "
    tight = before.rstrip().endswith(("^", "_"))
    return f"{{{content}}}" if tight else f" {content} "
