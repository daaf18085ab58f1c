"""Offload and reload of engines and learner that share GPUs, within a step.

On separate GPUs both only wait: engines are paused while weights arrive. On shared GPUs
(`cluster.colocate`) they take turns with the memory:

    engines sample     their weights and caches        the learner's states in host memory
    learner updates    engines asleep, nothing         everything
    weights travel     their weights, to be replaced   its weights; the optimizer has left

An engine that slept has no weights, so it never wakes without new ones (verl#7987), and its cache
gets memory only after the learner has released the rest (vllm#15254).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from cluster.remote import RemoteActor

OnAll = Callable[..., list[Any]]  # (actors, method, *args): calls a method on all, and waits


class Handover(Protocol):
    """Called before the learner computes, before weights travel, and after they have arrived."""

    @property
    def engines_can_work(self) -> bool: ...

    def to_learner(self, engines: Sequence[RemoteActor]) -> None: ...

    def to_broadcast(self, engines: Sequence[RemoteActor]) -> None: ...

    def to_engines(self, engines: Sequence[RemoteActor]) -> None: ...


class SeparateGpus:
    """Engines and learner have GPUs of their own."""

    engines_can_work = True

    def __init__(self, on_all: OnAll) -> None:
        self.on_all = on_all

    def to_learner(self, engines: Sequence[RemoteActor]) -> None:
        """No-op: engines and learner have separate GPUs."""

    def to_broadcast(self, engines: Sequence[RemoteActor]) -> None:
        self.on_all(engines, "pause")

    def to_engines(self, engines: Sequence[RemoteActor]) -> None:
        self.on_all(engines, "resume")


class SharedGpus:
    """One engine and one learner rank on each GPU. A run begins with the learner's turn.

    Args:
        on_all: calls a method on actors.
        learner: every rank.
    """

    def __init__(self, on_all: OnAll, learner: Sequence[RemoteActor]) -> None:
        self.on_all, self.learner = on_all, list(learner)
        self.turn: Literal["engines", "learner", "broadcast"] = "learner"

    @property
    def engines_can_work(self) -> bool:
        return self.turn == "engines"

    def to_learner(self, engines: Sequence[RemoteActor]) -> None:
        if self.turn == "learner":
            return
        self.on_all(engines, "sleep")
        self.on_all(self.learner, "return_to_gpu")
        self.turn = "learner"

    def to_broadcast(self, engines: Sequence[RemoteActor]) -> None:
        if self.turn == "broadcast":  # the handover before failed, and nothing has to move
            return
        self.to_learner(engines)
        self.on_all(self.learner, "leave_gpu", "optimizer")
        self.turn = "broadcast"  # also if one does not wake: the others have been woken
        self.on_all(engines, "wake", "weights")

    def to_engines(self, engines: Sequence[RemoteActor]) -> None:
        self.on_all(self.learner, "leave_gpu", "weights")
        self.turn = "engines"  # also if one of them does not wake: the next attempt starts over
        self.on_all(engines, "wake", "kv_cache")
        self.on_all(engines, "resume")
