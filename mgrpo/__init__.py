"""mgrpo: train language models to reason and to correct themselves.

    run = mgrpo.train("quickstart", data="sums.jsonl", reward=exact, steps=20)
    mgrpo.Run("quickstart").metrics()

Light on purpose: importing it is fast, so that `mgrpo --help` answers at once. What the library
has is imported with its first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mgrpo.rooms import keep_rooms
from mgrpo.version import __version__

if TYPE_CHECKING:
    from mgrpo.library import Run, train

__all__ = ["Run", "__version__", "train"]

keep_rooms()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mgrpo' has no attribute {name!r}")
    return getattr(import_module("mgrpo.library"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
