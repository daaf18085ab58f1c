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

from collections.abc import Sequence
from typing import Literal, Protocol

from cluster.engine_actor import EngineActor
from cluster.remote import Call, RemoteActor, Result
from cluster.weight_sync.engine_client import RankActor


class Wait(Protocol):
    """Waits for calls; their results in the same order."""

    def __call__(self, calls: Sequence[Call[Result]]) -> list[Result]: ...


class Handover(Protocol):
    """Called before the learner computes, before weights travel, and after they have arrived."""

    @property
    def engines_can_work(self) -> bool: ...

    def to_learner(self, engines: Sequence[RemoteActor[EngineActor]]) -> None: ...

    def to_broadcast(self, engines: Sequence[RemoteActor[EngineActor]]) -> None: ...

    def to_engines(self, engines: Sequence[RemoteActor[EngineActor]]) -> None: ...


class SeparateGpus:
    """Engines and learner have GPUs of their own.

    Args:
        wait: for calls, with the broadcast's deadline.
        in_flight: running requests go on with the new weights.
    """

    engines_can_work = True

    def __init__(self, wait: Wait, *, in_flight: bool = False) -> None:
        self.wait, self.in_flight = wait, in_flight

    def to_learner(self, engines: Sequence[RemoteActor[EngineActor]]) -> None:
        """No-op: engines and learner have separate GPUs."""

    def to_broadcast(self, engines: Sequence[RemoteActor[EngineActor]]) -> None:
        self.wait([one.submit(EngineActor.pause, in_flight=self.in_flight) for one in engines])

    def to_engines(self, engines: Sequence[RemoteActor[EngineActor]]) -> None:
        self.wait([one.submit(EngineActor.resume) for one in engines])


class SharedGpus:
    """One engine and one learner rank on each GPU. A run begins with the learner's turn.

    Args:
        wait: for calls, with the broadcast's deadline.
        learner: every rank.
    """

    def __init__(self, wait: Wait, learner: Sequence[RemoteActor[RankActor]]) -> None:
        self.wait, self.learner = wait, list(learner)
        self.turn: Literal["engines", "learner", "broadcast"] = "learner"

    @property
    def engines_can_work(self) -> bool:
        return self.turn == "engines"

    def to_learner(self, engines: Sequence[RemoteActor[EngineActor]]) -> None:
        if self.turn == "learner":
            return
        self.wait([one.submit(EngineActor.sleep) for one in engines])
        self.wait([one.submit(RankActor.return_to_gpu) for one in self.learner])
        self.turn = "learner"

    def to_broadcast(self, engines: Sequence[RemoteActor[EngineActor]]) -> None:
        if self.turn == "broadcast":  # the handover before failed, and nothing has to move
            return
        self.to_learner(engines)
        self.wait([one.submit(RankActor.leave_gpu, "optimizer") for one in self.learner])
        self.turn = "broadcast"  # also if one does not wake: the others have been woken
        self.wait([one.submit(EngineActor.wake, "weights") for one in engines])

    def to_engines(self, engines: Sequence[RemoteActor[EngineActor]]) -> None:
        self.wait([one.submit(RankActor.leave_gpu, "weights") for one in self.learner])
        self.turn = "engines"  # also if one of them does not wake: the next attempt starts over
        self.wait([one.submit(EngineActor.wake, "kv_cache") for one in engines])
        self.wait([one.submit(EngineActor.resume) for one in engines])
