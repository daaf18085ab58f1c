"""Recipes: strict pydantic models, without torch.

The sections are imported with the first use of one from here: a reward process, which may have to
be replaced at any time, imports those of rewards alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgrpo.config.sections import *  # noqa: F403
else:

    def __getattr__(name: str) -> Any:
        return getattr(import_module("mgrpo.config.sections"), name)
