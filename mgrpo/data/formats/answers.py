"""Extraction and validation of a row's reference answer.

An empty reference would be matched by an empty box, and `nan` or an infinite number by writing just
that; neither is a useful training signal.
"""

from __future__ import annotations

import math
import re
import unicodedata

from rewards.boxed import count_boxes, last_box

FINAL_ANSWER_MARK = re.compile(r"(?<!#)####(?!#)[^\S\n]*(?P<answer>[^\n]*)\s*\Z")
"""GSM8K writes the solution, then this mark and the answer in the last line. Elsewhere in a text
the same characters are a heading."""
NO_ANSWER = "no answer"
NOT_FINITE = "answer is not finite"
LAYOUT = re.compile(
    r"\\(?:text\w*|math\w+|mbox|boxed|fbox|operatorname|left|right|displaystyle|textstyle|q?quad)"
    r"(?![a-zA-Z])|\\[()\[\]]"
)
SAYS_SOMETHING = frozenset("*/%&#@()[]")  # of the characters that Unicode calls punctuation
SAYS_NOTHING = frozenset("$`~^\\{}")  # beside them


def final_answer(text: str) -> str:
    """The answer itself: the text after "####" in the last line, if present."""
    match = FINAL_ANSWER_MARK.search(text)
    return (text if match is None else match["answer"]).strip()


def solution_before(text: str) -> str:
    """The text before the final answer's mark; "" without one."""
    match = FINAL_ANSWER_MARK.search(text)
    return "" if match is None else text[: match.start()].strip()


def answer_fault(answer: str) -> str:
    """Why this is not a valid reference answer; "" if it is. In a text with a box, the box
    counts."""
    box = last_box(answer)
    if box is None and count_boxes(answer):
        return NO_ANSWER  # its boxes are empty, or never closed
    text = LAYOUT.sub("", answer if box is None else box.content)
    if not any(map(says_something, text.replace("\\{", "[").replace("\\}", "]"))):
        return NO_ANSWER
    try:
        number = float(re.sub(r"[\s${}\\]", "", text).replace("\u2212", "-"))
    except ValueError:
        return ""
    return "" if math.isfinite(number) else NOT_FINITE


def says_something(character: str) -> bool:
    """Whether this is more than punctuation, space and LaTeX syntax."""
    if character in SAYS_SOMETHING:
        return True
    return character not in SAYS_NOTHING and unicodedata.category(character)[0] not in "PZC"
