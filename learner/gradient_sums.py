"""The gradient of an update whose factors are known at its end alone.

Losses are sums, so the gradient of `f1 L1 + f2 L2` is `f1 G1 + f2 G2`: where f1 and f2 become known
after the backward passes, G1 and G2 are kept apart until then. With one part nothing is kept beside
DeepSpeed's own accumulated gradient, which is multiplied in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor


class LiveGradient(Protocol):
    """What an engine has accumulated since its last step, on this rank."""

    def read(self) -> dict[int, Tensor]:
        """By number, the tensors themselves; those without any gradient are missing."""
        ...

    def clear(self) -> None:
        """As if nothing had been accumulated. Tensors that were read keep their values."""
        ...

    def write(self, number: int, value: Tensor) -> None:
        """Put a tensor where `read` had none."""
        ...


class OfParameters:
    """ZeRO stages 0 and 1 in float32: each rank's own gradients stand at the parameters."""

    def __init__(self, engine: Any) -> None:
        self.parameters = [one for one in engine.module.parameters() if one.requires_grad]

    def read(self) -> dict[int, Tensor]:
        known = enumerate(one.grad for one in self.parameters)
        return {number: gradient for number, gradient in known if gradient is not None}

    def clear(self) -> None:
        for one in self.parameters:
            one.grad = None

    def write(self, number: int, value: Tensor) -> None:
        self.parameters[number].grad = value


class OfOptimizer:
    """Float32 sums in DeepSpeed's optimizer: of stages 2 and 3, and of stage 1 in bfloat16."""

    def __init__(self, engine: Any) -> None:
        self.optimizer, self.stage = engine.optimizer, engine.zero_optimization_stage()

    def read(self) -> dict[int, Tensor]:
        return dict(enumerate(self.tensors()))

    def tensors(self) -> list[Tensor]:
        optimizer = self.optimizer
        if self.stage == 3:
            return [optimizer.grad_partitions_flat_buffer]
        if self.stage == 1:
            return list(optimizer.fp32_groups_gradients_flat)
        lists = [*optimizer.all_grad_tensors.values(), *optimizer.averaged_gradients.values()]
        return [tensor for tensors in lists for tensor in tensors or ()]

    def clear(self) -> None:
        for tensor in self.tensors():
            tensor.zero_()

    def write(self, number: int, value: Tensor) -> None:
        raise AssertionError("these tensors stay once they are there")


def live_gradient(engine: Any) -> LiveGradient:
    """Where a DeepSpeed engine accumulates, by its ZeRO stage and type."""
    is_flat = hasattr(engine.optimizer, "fp32_groups_gradients_flat")
    if engine.zero_optimization_stage() >= 2 or is_flat:
        return OfOptimizer(engine)
    return OfParameters(engine)


class GradientSums:
    """Gradients of named parts of one update. Every rank calls it alike."""

    def __init__(self, live: LiveGradient) -> None:
        self.live = live
        self.begin()

    def begin(self) -> None:
        """A new update: the engine has taken its step, or has accumulated nothing."""
        self.part: int | None = None  # what the engine accumulates now
        self.kept: dict[int, dict[int, Tensor]] = {}

    def turn_to(self, part: int) -> None:
        """What is accumulated from here on belongs to `part`."""
        if self.part is not None and part != self.part:
            self.put_away(self.part)
        self.part = part

    @torch.no_grad()
    def put_away(self, part: int) -> None:
        """Add what the engine holds to what is kept of its part."""
        kept = self.kept.setdefault(part, {})
        for number, gradient in self.live.read().items():
            if number in kept:
                kept[number] += gradient
            else:
                kept[number] = gradient.clone()
        self.live.clear()

    @torch.no_grad()
    def finish(self, factors: Mapping[int, float]) -> None:
        """Leave the sum of all parts, each times its factor, to the engine's step."""
        live = self.live.read()
        if self.part is not None:
            for gradient in live.values():
                gradient *= factors[self.part]
        for part, kept in self.kept.items():
            for number, gradient in kept.items():
                if number in live:
                    live[number].add_(gradient, alpha=factors[part])
                else:
                    self.live.write(number, gradient * factors[part])
                    live = self.live.read()
        self.kept.clear()

    def drop(self) -> None:
        """Forget the update."""
        self.live.clear()
        self.begin()
