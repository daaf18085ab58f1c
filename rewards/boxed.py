"""Finding \\boxed{...} in a completion. Linear in its length, whatever it contains."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

BOX = re.compile(r"\\boxed(?![a-zA-Z])\s*")
MENTION = re.compile(r"\\boxed(?:[a-zA-Z]|\s*(?:[^\w\s\\{]|[^\W\d]{2}|\Z))")
"""The command as a word of the prose ("I used \\boxed."), or another one such as \\boxedness."""
NO_ANSWER = re.compile(r"(?:[\s.,;:!?'\"`$~{}]|\\(?:text|boxed|[ ,;:!])|\\q?quad(?![a-zA-Z]))*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One \\boxed{...}: its content, and the position after it."""

    content: str
    start: int  # index of its backslash
    end: int  # index just behind its closing brace


def last_box(text: str) -> Box | None:
    """The last box that holds an answer; None without one, or where the last is never closed.

    An empty box is no answer and does not take back the one before it. An unclosed last box is
    a completion cut short while it stated its answer. An earlier box is then no substitute: the
    policy was about to replace it.
    """
    for start in box_starts(text):
        box = box_at(text, start)
        if box is None:
            return None
        if not is_blank(box.content):
            return box
    return None


def is_blank(content: str) -> bool:
    """Nothing but space, punctuation and empty commands: no answer, and no reference either."""
    return NO_ANSWER.fullmatch(content) is not None


def box_starts(text: str) -> Iterator[int]:
    """Where boxes begin, the last first; the command as a word of the prose is none."""
    start = text.rfind("\\boxed")
    while start >= 0:
        if MENTION.match(text, start) is None:
            yield start
        start = text.rfind("\\boxed", 0, start)


def count_boxes(text: str) -> int:
    """How many boxes are opened, closed or not; a box inside a box counts too."""
    return sum(1 for _ in BOX.finditer(text))


def box_at(text: str, start: int) -> Box | None:
    """The box whose backslash is at `start`; None if its braces do not balance."""
    opening = BOX.match(text, start)
    if opening is None:
        return None
    end = group_end(text, opening.end())
    if end is None:
        return None
    return Box(content=text[opening.end() + 1 : end - 1], start=start, end=end)


def group_end(text: str, start: int) -> int | None:
    """Index just behind the {...} that opens at `start`; None if none opens or none closes."""
    if not text.startswith("{", start):
        return None
    depth = 0
    position = start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1  # \{ and \} are printed braces, they do not nest
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return position + 1
        position += 1
    return None
