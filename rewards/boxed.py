"""Finding \\boxed{...} in a completion. Linear in its length, whatever it contains."""

from __future__ import annotations

import re
from dataclasses import dataclass

BOX = re.compile(r"\\boxed(?![a-zA-Z])\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One \\boxed{...}: what is inside, and where the text goes on behind it."""

    content: str
    start: int  # index of its backslash
    end: int  # index just behind its closing brace


def last_box(text: str) -> Box | None:
    """The last box of a completion; None without one, or where the last is never closed.

    An unclosed last box is a completion cut short while it stated its answer. An earlier box
    is then no substitute: the policy was about to replace it.
    """
    start = text.rfind("\\boxed")
    return None if start < 0 else box_at(text, start)


def count_boxes(text: str) -> int:
    """How many boxes are opened, closed or not; a box inside a box counts too."""
    return sum(1 for _ in BOX.finditer(text))


def box_at(text: str, start: int) -> Box | None:
    """The box whose backslash is at `start`; None if its braces do not balance."""
    opening = BOX.match(text, start)
    if opening is None or not text.startswith("{", opening.end()):
        return None
    depth = 0
    position = opening.end()
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1  # \{ and \} are printed braces, they do not nest
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                content = text[opening.end() + 1 : position]
                return Box(content=content, start=start, end=position + 1)
        position += 1
    return None
