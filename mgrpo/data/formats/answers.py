"""The reference answer in what a row calls its answer, and whether it is one.

A reference that says nothing can be earned by a box that says nothing, and one that is no number
(`nan`) or an endless one by writing just that; neither teaches anything.
"""

from __future__ import annotations

import math
import re
import unicodedata

from rewards.boxed import count_boxes, last_box

FINAL_ANSWER_MARK = re.compile(r"(?<!#)####(?!#)[^\S\n]*(?P<answer>[^\n]*)\s*\Z")
"""GSM8K writes the solution, this mark and the answer, as the last line. Elsewhere in a text the
same signs are a heading."""
NO_ANSWER = "no answer"
NOT_FINITE = "answer is not finite"
LAYOUT = re.compile(
    r"\\(?:text\w*|math\w+|mbox|boxed|fbox|operatorname|left|right|displaystyle|textstyle|q?quad)"
    r"(?![a-zA-Z])|\\[()\[\]]"
)
SAYS_SOMETHING = frozenset("*/%&#@()[]")  # of the characters that Unicode calls punctuation
SAYS_NOTHING = frozenset("$`~^\\{}")  # beside them


def final_answer(text: str) -> str:
    """The answer itself: what the last line says behind "####", where it does."""
    match = FINAL_ANSWER_MARK.search(text)
    return (text if match is None else match["answer"]).strip()


def solution_before(text: str) -> str:
    """What stands before the final answer's mark; nothing without one."""
    match = FINAL_ANSWER_MARK.search(text)
    return "" if match is None else text[: match.start()].strip()


def answer_fault(answer: str) -> str:
    """Why this is no reference answer; "" if it is one. Of a text with a box, the box counts."""
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
    """Is this more than punctuation, space and LaTeX's own signs?"""
    if character in SAYS_SOMETHING:
        return True
    return character not in SAYS_NOTHING and unicodedata.category(character)[0] not in "PZC"
