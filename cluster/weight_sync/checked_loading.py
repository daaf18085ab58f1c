"""Checksums of the tensors that a weight receiver loads into vLLM's model. No vLLM import."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from cluster.weight_sync.checksum import tensor_checksum


class CheckingLoader:
    """A wrapper of a model that records a checksum of each loaded tensor."""

    def __init__(self, model: Any, received: dict[str, int]) -> None:
        self.model, self.received = model, received

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> object:
        pairs = list(weights)
        for name, tensor in pairs:
            self.received[name] = tensor_checksum(tensor)
        return self.model.load_weights(pairs)


class ChecksArrivals:
    """A mixin for vLLM's receivers: records a checksum of every received tensor."""

    model: Any

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.received: dict[str, int] = {}

    def start_weight_update(self) -> None:
        self.received = {}
        super().start_weight_update()  # type: ignore[misc]

    def receive_weights(self, update_info: object) -> None:
        model = self.model
        self.model = CheckingLoader(model, self.received)
        try:
            self.receive(update_info)
        finally:
            self.model = model

    def receive(self, update_info: Any) -> None:
        super().receive_weights(update_info)  # type: ignore[misc]
