"""What training needs of the program or notebook that calls it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def beside_the_caller() -> Iterator[None]:
    """Train in the middle of a script, guarded by `__main__` or not, or of a notebook's cell.

    Reward processes are spawned, and Python would run the calling script again in each of them.
    They need nothing of it, so it is made unfindable as long as they may be started. A notebook
    runs its cells inside an event loop, in which no other may run; it waits for the cell in any
    case, so it is set aside until then.
    """
    main: Any = sys.modules["__main__"]
    script = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    around = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(around)
        vars(main).update(script)
