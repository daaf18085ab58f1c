"""Imports of large libraries."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import without garbage collection, which goes through all that was imported so far, again and
    again: 1.9 of the 12.4 CPU seconds of vLLM's import, and it frees 14 MB of 590.

    What is new afterwards counts as old, so that the next collection is not of all of it either,
    except where something is frozen: that must stay so.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()  # into the oldest generation
        if was_enabled:
            gc.enable()
