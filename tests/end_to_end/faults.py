"""Faults for the weight broadcast, loaded into vLLM's workers in place of our extension."""

from __future__ import annotations

import os

import torch

from cluster.weight_sync.checked_loading import CheckingLoader
from cluster.weight_sync.weight_transfer import GlooReceiver, WeightInspector


class FaultyWorker(WeightInspector):
    """Can spoil a tensor on its way in, or after it was loaded."""

    def spoil_next_received(self, name: str) -> None:
        receiver: GlooReceiver = self.weight_transfer_engine
        receive = receiver.receive

        def spoiled(update_info: object) -> None:
            loader = receiver.model
            receiver.model = SpoilingLoader(loader, name)
            receive(update_info)
            receiver.receive = receive

        receiver.receive = spoiled

    def die_in_next_broadcast(self, num_tensors: int) -> None:
        """End the process that holds the model once so many tensors have come."""
        receiver: GlooReceiver = self.weight_transfer_engine
        receive = receiver.receive

        def dying(update_info: object) -> None:
            receiver.model = DyingLoader(receiver.model, num_tensors)
            receive(update_info)

        receiver.receive = dying

    def spoil_loaded(self) -> str:
        """Change one loaded tensor; returns its name."""
        model = self.weight_transfer_engine.model
        name, parameter = next((n, p) for n, p in model.named_parameters() if "norm" in n)
        with torch.no_grad():
            parameter += 0.5
        return str(name)


class SpoilingLoader:
    """Adds a little to one tensor before anybody has looked at it."""

    def __init__(self, loader: CheckingLoader, name: str) -> None:
        self.loader, self.name = loader, name

    def load_weights(self, pairs: object) -> object:
        return self.loader.load_weights([(n, t + 1e-3 if n == self.name else t) for n, t in pairs])


class DyingLoader:
    """Loads some tensors, then is gone."""

    def __init__(self, loader: CheckingLoader, num_tensors: int) -> None:
        self.loader, self.num_left = loader, num_tensors

    def load_weights(self, pairs: object) -> object:
        self.num_left -= 1
        if self.num_left < 0:
            os._exit(1)
        return self.loader.load_weights(pairs)
