"""What vLLM's workers load so that weights can be spoiled from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from benchmarks.chaos.hostile import ARRIVING, LOADED, take_order
from cluster.weight_sync.weight_transfer import WeightInspector


class SpoilingWorker(WeightInspector):
    """Spoils a tensor of the next broadcast, or one that is loaded, when it is told to."""

    def received_checksums(self) -> dict[str, int]:
        receiver: Any = self.weight_transfer_engine
        if take_order(LOADED):
            weight = max(receiver.model.parameters(), key=lambda one: one.numel())
            weight.data += 0.5
        if take_order(ARRIVING):
            receiver.receive = Spoiled(receiver)
        return super().received_checksums()


class Spoiled:
    """In place of a receiver's `receive` and, while that runs, of its model: the first tensor that
    comes is loaded as another one. Once."""

    def __init__(self, receiver: Any) -> None:
        self.receiver, self.receive = receiver, receiver.receive
        self.is_done = False

    def __call__(self, update_info: object) -> None:
        self.receiver.receive = self.receive
        self.loader, self.receiver.model = self.receiver.model, self
        self.receive(update_info)

    def load_weights(self, pairs: Sequence[tuple[str, Tensor]]) -> object:
        added = 0.0 if self.is_done else 1e-3
        self.is_done = True
        return self.loader.load_weights([(name, tensor + added) for name, tensor in pairs])
