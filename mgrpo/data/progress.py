"""Says how far a long reading is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
Note = Callable[[str], None]
NOTE_EVERY_S = 10.0


def silent(text: str) -> None:
    """A `Note` for callers that show nothing."""


def noting(items: Iterable[T], note: Note, text: str) -> Iterator[T]:
    """The items; every `NOTE_EVERY_S` seconds `note` gets the text.

    Args:
        text: with {} in the place of the number of items so far.
    """
    last = time.monotonic()
    for number, item in enumerate(items):
        now = time.monotonic()
        if now - last >= NOTE_EVERY_S:
            note(text.replace("{}", f"{number:,}"))
            last = now
        yield item
