"""Small programming problems with tests: a function to write, four calls of it, its reference.

    python make_problems.py     # writes problems.jsonl and heldout.jsonl beside this file

The same seed makes the same problems. Tests are made by running the reference.
"""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SEED = 0
NUM_HELDOUT = 24
NUM_TESTS = 4
Draw = Callable[[random.Random], Any]


def number(draw: random.Random) -> int:
    return draw.randrange(-20, 21)


def numbers(draw: random.Random) -> list[int]:
    return [number(draw) for _ in range(draw.randrange(1, 6))]


def word(draw: random.Random) -> str:
    return "".join(draw.choice("abcdeo") for _ in range(draw.randrange(1, 8)))


ONE_LINERS: list[tuple[str, str, str, str, Draw]] = [
    # name, argument, expression, what it returns, how an argument is drawn
    ("double", "x", "2 * x", "twice the number x", number),
    ("square", "x", "x * x", "the square of the number x", number),
    ("negate", "x", "-x", "the number x with the other sign", number),
    ("is_even", "x", "x % 2 == 0", "True if the number x is even, else False", number),
    ("is_positive", "x", "x > 0", "True if the number x is above 0, else False", number),
    ("distance", "x", "abs(x)", "the absolute value of the number x", number),
    ("total", "items", "sum(items)", "the sum of the list items", numbers),
    ("largest", "items", "max(items)", "the largest number of the list items", numbers),
    ("smallest", "items", "min(items)", "the smallest number of the list items", numbers),
    ("count", "items", "len(items)", "how many numbers the list items has", numbers),
    ("first", "items", "items[0]", "the first number of the list items", numbers),
    ("last", "items", "items[-1]", "the last number of the list items", numbers),
    ("ordered", "items", "sorted(items)", "the list items, sorted", numbers),
    ("turned", "items", "items[::-1]", "the list items in reverse order", numbers),
    ("length", "text", "len(text)", "the number of characters of the text", word),
    ("upper", "text", "text.upper()", "the text in capital letters", word),
    ("backwards", "text", "text[::-1]", "the text backwards", word),
    ("initial", "text", "text[0]", "the first character of the text", word),
    ("twice", "text", "text * 2", "the text, written twice", word),
]


def kinds() -> Iterator[tuple[str, str, str, str, Draw]]:
    """The one-liners, and families of them with a number."""
    yield from ONE_LINERS
    for n in range(2, 13):
        yield f"add_{n}", "x", f"x + {n}", f"the number x plus {n}", number
        yield f"times_{n}", "x", f"x * {n}", f"the number x times {n}", number
        yield f"minus_{n}", "x", f"x - {n}", f"the number x minus {n}", number
        yield f"rest_{n}", "x", f"x % {n}", f"the rest of x divided by {n}", number
        yield f"above_{n}", "x", f"x > {n}", f"True if x is above {n}, else False", number


def problems() -> list[dict[str, Any]]:
    draw = random.Random(SEED)
    rows = []
    for name, argument, expression, words, drawn in kinds():
        arguments = [drawn(draw) for _ in range(NUM_TESTS)]
        tests = [
            {"function": name, "arguments": [one], "output": eval(expression, {argument: one})}
            for one in arguments
        ]
        rows.append(
            {
                "question": f"Write a function {name}({argument}) that returns {words}.",
                "answer": f"```python\ndef {name}({argument}):\n    return {expression}\n```",
                "tests": tests,
            }
        )
    draw.shuffle(rows)
    return rows


def main() -> None:
    rows = problems()
    files = {"heldout.jsonl": rows[:NUM_HELDOUT], "problems.jsonl": rows[NUM_HELDOUT:]}
    for name, part in files.items():
        lines = "".join(json.dumps(row) + "\n" for row in part)
        Path(__file__).with_name(name).write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
