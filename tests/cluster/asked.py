"""Actors that do nothing: a call says what was asked of whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Asked:
    """In place of a `cluster.remote.Call`."""

    actor: AskedActor
    method: str
    args: tuple[Any, ...]
    keys: dict[str, Any]


@dataclass(frozen=True)
class AskedActor:
    """In place of a `cluster.remote.RemoteActor`."""

    name: str

    def submit(self, method: Callable[..., Any], *args: Any, **keys: Any) -> Asked:
        return Asked(self, method.__name__, args, keys)
