"""Keeps Python's garbage collector from stopping the event loop."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Leave the objects that exist at the start out of garbage collection until the end.

    The imported libraries and the loaded problems live as long as a run and are some hundred
    thousand objects. Each collection of the oldest generation would go through all of them, while
    the event loop, and with it every rollout, stands still.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
