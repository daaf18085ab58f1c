"""Reading LaTeX and typed formulas as trees. No evaluation, and no limit on what may be written.

What is not in the grammar (sums, integrals, limits, words) raises `Unreadable`; such answers are
compared as text. Symbols keep their case and their subscripts: R is not r, x_1 is not x_2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from rewards.spellings import CAPITAL_GREEK, FUNCTIONS, GREEK, word_set

Kind = Literal[
    "number", "symbol", "constant", "add", "times", "beside", "over", "power", "negate", "root",
    "call", "factorial", "absolute", "floor", "ceiling", "binomial", "degrees",
]  # fmt: skip

MAX_DEPTH = 40  # of brackets within brackets; Python's own stack allows about 90
MAX_TOKENS = 300  # a longer formula is compared as text; sums nest to the left
MAX_LETTERS = 4  # more letters in a row are a word, no product
MAX_EXPONENT = 4000  # of a typed 1e400; a larger one is not written out

SAME_FUNCTION = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}
INVERSES = {name: f"arc{name}" for name in ("sin", "cos", "tan", "cot")}
CONSTANTS = {"e": "e", "i": "i", "pi": "pi", "infty": "infinity", "infinity": "infinity"}
LETTERS = (GREEK | CAPITAL_GREEK | {"ell", "hbar"}) - {"pi"}
ACCENTS = word_set("vec hat bar tilde overline overrightarrow mathbb mathcal mathscr")
NAMED_FUNCTIONS = frozenset("fghFGPQ")
"""Letters that are functions where a bracket follows them: f(2x) is not 2f(x)."""

DECIMAL = r"(?:\d+\.?\d*|\.\d+)"
TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<mixed>\d+\s*\\frac\s*(?:\{\s*\d+\s*\}\s*\{\s*\d+\s*\}|\d\s*\d)"
    r"|\d+\s+\d+\s*/\s*\d+(?![\d.]))"
    r"|(?P<repeating>\d*\.\d*(?:\\(?:overline|bar|dot)\s*(?:\{\s*\d+\s*\}|\d)|\(\d+\))(?![\d.]))"
    r"|(?P<dots>\d*\.\d+\s?\.\.\.)"
    r"|(?P<prefixed>0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+)(?![\w.])"
    rf"|(?P<number>{DECIMAL}(?:[eE][+-]?\d+)?)"
    r"|(?P<command>\\(?:[a-zA-Z]+|.))"
    r"|(?P<word>[a-zA-Z]+)"
    r"|(?P<mark>[-+*/^_(){}\[\]|!'<>=,])",
    re.DOTALL,
)
DIGITS = re.compile(r"\d+")
REPEATED = re.compile(r"(\d*)\.(\d*?)(?:(\d)\3\3+|(\d{2,}?)\4+)\s?\.\.\.")


class Unreadable(Exception):
    """Not a formula of the grammar."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation and its operands, or a leaf.

    Example: 2x is Node("beside", (Node("number", value=Fraction(2)), Node("symbol", name="x"))).
    """

    kind: Kind
    parts: tuple[Node, ...] = ()
    name: str = ""
    value: Fraction = Fraction(0)

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for part in self.parts:
            yield from part.walk()


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str


@lru_cache(maxsize=4096)
def read_expression(text: str, *, words: bool = False) -> Node | None:
    """The tree of a formula; None if it is not one.

    Args:
        text: cleaned by `answer_text.clean`, thousands separators joined.
        words: letters in a row are a product however many they are.
    """
    try:
        reader = Reader(tokens_of(text), words)
        node = reader.sum()
        return node if reader.at_end() else None
    except Unreadable:
        return None


def tokens_of(text: str) -> list[Token]:
    """Tokens without spaces. A number behind ^ or _ is never a mixed one."""
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        if len(tokens) == MAX_TOKENS:
            raise Unreadable(text[position:])
        match = TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise Unreadable(text[position])
        kind, found = match.lastgroup, match.group()
        if kind == "mixed" and (is_raised(tokens) or not is_proper(found)):
            shorter = DIGITS.match(text, position)
            assert shorter is not None
            kind, found = "number", shorter.group()
        if kind != "space":
            tokens.append(Token(kind, found))
        position += len(found)
    return tokens


def is_raised(tokens: list[Token]) -> bool:
    return bool(tokens) and tokens[-1].text in "^_"


def mixed_parts(text: str) -> list[int]:
    """[whole, numerator, denominator] of `2 3/4`, `2\\frac{3}{4}` or `2\\frac34`."""
    found = [int(digits) for digits in DIGITS.findall(text)]
    return found if len(found) == 3 else [found[0], *divmod(found[1], 10)]


def is_proper(text: str) -> bool:
    """Is 2 3/4 a mixed number? 2 5/3 is not: its fraction is more than one."""
    _, over, under = mixed_parts(text)
    return 0 < over < under


def number_of(token: Token) -> Fraction:
    """The exact value of a token that is a number."""
    text = token.text
    if token.kind == "mixed":
        whole, over, under = mixed_parts(text)
        return whole + Fraction(over, under)
    if token.kind == "prefixed":
        return Fraction(int(text, 0))
    if token.kind == "repeating":
        before, _, rest = text.partition(".")
        fixed, block = re.findall(r"\d*(?=\\|\()|\d+(?=\}|\)|$)", rest)[0], DIGITS.findall(rest)[-1]
        return repeating(before, fixed, block)
    if token.kind == "dots":
        match = REPEATED.fullmatch(text)
        if match is None:
            raise Unreadable(text)
        return repeating(match[1], match[2], match[3] or match[4])
    mantissa, _, power = text.lower().partition("e")
    if len(power) > 5 or abs(int(power or 0)) > MAX_EXPONENT:
        raise Unreadable(text)
    return Fraction(mantissa) * Fraction(10) ** int(power or 0)


def repeating(before: str, fixed: str, block: str) -> Fraction:
    """The value of before.fixed(block)(block)..., digits all."""
    start = Fraction(int(before + fixed or "0"), 10 ** len(fixed))
    return start + Fraction(int(block), (10 ** len(block) - 1) * 10 ** len(fixed))


class Reader:
    """Recursive descent over tokens, with the usual precedence; -x^2 is -(x^2)."""

    def __init__(self, tokens: list[Token], words: bool) -> None:
        self.tokens = list(tokens)
        self.position = 0
        self.depth = 0
        self.words = words
        self.bars = 0  # of |x| that are open

    def at_end(self) -> bool:
        return self.position >= len(self.tokens)

    def peek(self) -> Token:
        return Token("end", "") if self.at_end() else self.tokens[self.position]

    def take(self, *texts: str) -> str:
        """The next token's text if it is one of these, else ""."""
        text = self.peek().text
        if not self.at_end() and text in texts:
            self.position += 1
            return text
        return ""

    def need(self, text: str) -> None:
        if not self.take(text):
            raise Unreadable(self.peek().text)

    def sum(self) -> Node:
        node = self.product()
        while sign := self.take("+", "-"):
            term = self.product()
            node = Node("add", (node, term if sign == "+" else Node("negate", (term,))))
        return node

    def product(self) -> Node:
        node = self.signed()
        while True:
            if self.take("*", "\\cdot", "\\times"):
                node = Node("times", (node, self.signed()))
            elif self.take("/", "\\div"):
                node = Node("over", (node, self.signed()))
            elif self.starts_factor():
                node = Node("beside", (node, self.power()))
            else:
                return node

    def signed(self) -> Node:
        if self.take("-"):
            return Node("negate", (self.power(),))
        self.take("+")
        return self.power()

    def starts_factor(self) -> bool:
        """Does a factor follow without a sign between? Digits do only behind a bracket."""
        token = self.peek()
        if token.kind in ("number", "mixed", "repeating", "dots", "prefixed"):
            return self.tokens[self.position - 1].text in (")", "}", "!", "]")
        if token.kind == "mark":
            return token.text in "({[" or (token.text == "|" and not self.bars)
        return token.kind == "word" or (
            token.kind == "command"
            and token.text not in ("\\cdot", "\\times", "\\div")
            and token.text[1:] not in ("rfloor", "rceil", "}")
        )

    def power(self) -> Node:
        node = self.postfix()
        if not self.take("^"):
            return node
        if self.take("\\circ"):
            return Node("degrees", (node,))
        if self.peek().text == "{" and [t.text for t in self.tokens[self.position + 1 :][:2]] == [
            "\\circ",
            "}",
        ]:
            self.position += 3
            return Node("degrees", (node,))
        exponent = Node("negate", (self.power(),)) if self.take("-") else self.power()
        return Node("power", (node, exponent))

    def postfix(self) -> Node:
        node = self.atom()
        while self.take("!"):
            if self.peek().text in ("!", "="):
                raise Unreadable("!!")
            node = Node("factorial", (node,))
        return node

    def atom(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH or self.at_end():
            raise Unreadable(self.peek().text)
        token = self.tokens[self.position]
        self.position += 1
        if token.kind in ("number", "mixed", "repeating", "dots", "prefixed"):
            node = Node("number", value=number_of(token))
        elif token.kind == "mark":
            node = self.bracketed(token.text)
        elif token.kind == "word":
            node = self.word(token.text)
        else:
            node = self.command(token.text[1:])
        self.depth -= 1
        return node

    def bracketed(self, opening: str) -> Node:
        closing = {"(": ")", "[": "]", "{": "}", "|": "|"}.get(opening)
        if closing is None:
            raise Unreadable(opening)
        bars, self.bars = self.bars, int(opening == "|")
        node = self.sum()
        self.bars = bars
        self.need(closing)
        return Node("absolute", (node,)) if opening == "|" else node

    def argument(self) -> Node:
        """A command's argument: a group, or one digit, letter or command as TeX takes it."""
        token = self.peek()
        if token.kind == "number" and len(token.text) > 1:
            if not token.text.isdigit():
                raise Unreadable(token.text)
            self.split(token.text[0], token.text[1:], "number")
        elif token.kind == "mixed":
            raise Unreadable(token.text)
        elif token.kind == "word" and len(token.text) > 1:
            self.split(token.text[0], token.text[1:], "word")
        return self.atom()

    def split(self, first: str, rest: str, kind: str) -> None:
        """Replace the next token by two."""
        self.tokens[self.position : self.position + 1] = [Token(kind, first), Token(kind, rest)]

    def word(self, text: str) -> Node:
        """Typed functions and constants (sqrt, pi), else the first of a product of letters."""
        for size in range(len(text), 1, -1):
            head = text[:size]
            name = SAME_FUNCTION.get(head, head)
            if name in FUNCTIONS or name in ("sqrt", "pi", "infinity"):
                if rest := text[size:]:
                    self.tokens.insert(self.position, Token("word", rest))
                elif name == "sqrt" and self.peek().kind == "number":
                    return Node("root", (self.atom(), Node("number", value=Fraction(2))))
                return self.command(name)
        inner = re.search(r"sqrt|pi|sin|cos|tan|ln|log|exp", text)
        letters = inner.start() if inner else len(text)
        if letters > MAX_LETTERS and not self.words:
            raise Unreadable(text)
        if len(text) > 1:
            self.tokens.insert(self.position, Token("word", text[1:]))
        return self.symbol(text[0])

    def symbol(self, name: str) -> Node:
        """A letter with its subscript and primes; e and i are the constants."""
        if self.take("_"):
            name += "_" + self.subscript()
        while self.take("'"):
            name += "'"
        if name in CONSTANTS:
            return Node("constant", name=CONSTANTS[name])
        following = [token.text for token in self.tokens[self.position :][:6]]
        if name[0] in NAMED_FUNCTIONS and following == ["^", "{", "-", "1", "}", "("]:
            self.position += 5
            name += "^-1"
        if name[0] in NAMED_FUNCTIONS and self.peek().text == "(":
            self.position += 1
            parts = [self.sum()]
            while self.take(",", "|"):
                parts.append(self.sum())
            self.need(")")
            return Node("call", tuple(parts), name=f"letter {name}")
        return Node("symbol", name=name)

    def subscript(self) -> str:
        if not self.take("{"):
            token = self.peek()
            if token.kind not in ("number", "word", "command"):
                raise Unreadable(token.text)
            if token.kind == "word" and len(token.text) > 1:
                self.split(token.text[0], token.text[1:], "word")
            self.position += 1
            return self.tokens[self.position - 1].text
        start = self.position
        while not self.take("}"):
            if self.at_end() or self.peek().text == "{":
                raise Unreadable("_")
            self.position += 1
        return "".join(token.text for token in self.tokens[start : self.position - 1])

    def command(self, name: str) -> Node:
        if name in ("frac", "binom", "dbinom", "tbinom"):
            parts = (self.argument(), self.argument())
            return Node("over" if name == "frac" else "binomial", parts)
        if name == "sqrt":
            return self.root()
        if name in FUNCTIONS:
            return self.function(name)
        if name in ("lfloor", "lceil", "{"):
            node = self.sum()
            self.need({"lfloor": "\\rfloor", "lceil": "\\rceil", "{": "\\}"}[name])
            return (
                Node("floor" if name == "lfloor" else "ceiling", (node,)) if name != "{" else node
            )
        if name in ACCENTS:
            return self.symbol(f"{name} {self.accented()}")
        if name in CONSTANTS:
            return Node("constant", name=CONSTANTS[name])
        if name in LETTERS:
            return self.symbol(f"\\{name}")
        raise Unreadable(name)

    def accented(self) -> str:
        if not self.take("{"):
            return self.subscript()
        self.position -= 1
        return self.subscript()

    def root(self) -> Node:
        index = Node("number", value=Fraction(2))
        if self.take("["):
            index = self.sum()
            self.need("]")
        return Node("root", (self.argument(), index))

    def function(self, name: str) -> Node:
        """sin x, sin(x), sin^2 x, sin^{-1} x, log_2 8. A bracket is the whole argument."""
        base: tuple[Node, ...] = ()
        raised = None
        if self.take("_"):
            base = (self.argument(),)
        if self.take("^"):
            raised = Node("negate", (self.argument(),)) if self.take("-") else self.argument()
        if raised == Node("negate", (Node("number", value=Fraction(1)),)) and name in INVERSES:
            name, raised = INVERSES[name], None
        node = Node("call", (self.function_argument(), *base), name=name)
        return node if raised is None else Node("power", (node, raised))

    def function_argument(self) -> Node:
        if self.peek().text in ("(", "{", "["):
            return self.atom()
        sign = self.take("-")
        node = self.power()
        while self.starts_factor() and not self.starts_function():
            node = Node("beside", (node, self.power()))
        return Node("negate", (node,)) if sign else node

    def starts_function(self) -> bool:
        text = self.peek().text
        return text in "({[" or text.lstrip("\\") in FUNCTIONS


def literal_value(node: Node) -> Fraction | None:
    """The exact value of a number that is written out; None for arithmetic still to be done.

    A quotient of two numbers, a x 10^n and 10^n are numbers; 3 + 4, 2^3 and 3 \\cdot 4 are not.
    """
    if node.kind == "number":
        return node.value
    if node.kind == "negate":
        value = literal_value(node.parts[0])
        return None if value is None or node.parts[0].kind == "negate" else -value
    if node.kind == "over":
        over = signed_number(node.parts[0])
        under = signed_number(node.parts[1]) or power_of_ten(node.parts[1])
        return over / under if over is not None and under else None
    if node.kind == "times":
        mantissa, power = signed_number(node.parts[0]), power_of_ten(node.parts[1])
        return None if mantissa is None or power is None else mantissa * power
    return power_of_ten(node)


def signed_number(node: Node) -> Fraction | None:
    if node.kind == "negate" and node.parts[0].kind == "number":
        return -node.parts[0].value
    return node.value if node.kind == "number" else None


def power_of_ten(node: Node) -> Fraction | None:
    """The value of 10^n, or of 10 itself."""
    if node == Node("number", value=Fraction(10)):
        return Fraction(10)
    if node.kind != "power" or node.parts[0] != Node("number", value=Fraction(10)):
        return None
    exponent = signed_number(node.parts[1])
    if exponent is None or exponent.denominator > 1 or abs(exponent) > MAX_EXPONENT:
        return None
    return Fraction(10) ** int(exponent)
