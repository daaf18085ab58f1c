"""The names that recipes use, and the classes that they stand for.

Each folder declares its own in its `__init__.py`, so that a method is added by adding its folder:

    # mgrpo/methods/scrpo/__init__.py
    PLUGINS = {"span_credit": "span_credit:SpanCredit"}  # name -> module:Class of this folder
    SOURCES = {"error_pool": "source:PooledErrors"}

These files import nothing, so that all names are known without torch.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

Kind = Literal["PLUGINS", "ADVANTAGES", "LOSSES", "IMPORTANCE", "SOURCES", "SAMPLERS"]

METHODS = "mgrpo.methods"
SHARED = ("learner.plugins", "mgrpo.training.sources")
"""Folders whose parts belong to no single method."""


@functools.cache
def declared(kind: Kind) -> Mapping[str, str]:
    """Every declared name of a kind, in alphabetical order, with its "package.module:Class"."""
    found: dict[str, str] = {}
    for folder in folders():
        for name, target in getattr(importlib.import_module(folder), kind, {}).items():
            assert name not in found, f"{kind} {name!r}: both {found[name]} and {folder}.{target}"
            found[name] = f"{folder}.{target}"
    return MappingProxyType(dict(sorted(found.items())))


def folders() -> Iterator[str]:
    """Packages that may declare parts."""
    yield from SHARED
    methods = importlib.import_module(METHODS)
    for one in pkgutil.iter_modules(methods.__path__, f"{METHODS}."):
        if one.ispkg:
            yield one.name


def load(kind: Kind, name: str) -> Any:
    """The class of a declared name; imports its module."""
    module_name, _, attribute = declared(kind)[name].partition(":")
    return getattr(importlib.import_module(module_name), attribute)
