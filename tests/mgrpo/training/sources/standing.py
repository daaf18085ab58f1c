"""A source that stands above another, outside a run."""

from __future__ import annotations

from typing import Any, TypeVar

from mgrpo.training.sources.source import SourcePlugin

AnySource = TypeVar("AnySource", bound=SourcePlugin)


def standing(kind: type[AnySource], config: Any, below: Any, **settings: Any) -> AnySource:
    """A source of this kind above `below`, which draws problems too."""
    source = kind(kind.Settings(**settings), frozenset({1}))
    source.stand_on(config, below, below)
    return source
