"""The learner's states between its GPU and the machine's memory, by DeepSpeed's own calls.

DeepSpeed moves everything of ZeRO stage 2 (https://arxiv.org/abs/1910.02054): weights, float32
master copy, gradients, and the optimizer's moments. At stage 3 it does so only for its own fused
Adam, which it would compile at start-up, and at stages 0 and 1 not in bfloat16. An optimizer that
is in the machine's memory for good (`offload_optimizer`) stays there: DeepSpeed's `reload_states`
would put its master copy on the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from learner.columns import Metrics
from learner.plugin import Movable

Part = Literal["optimizer", "weights"]
STATES: dict[Part, list[str]] = {
    "optimizer": ["optim_states", "hp_params", "lp_grads"],
    "weights": ["lp_params"],
}
"""DeepSpeed's names (OffloadStateTypeEnum, whose members are strings): hp is the float32 master
copy, lp what the model computes with."""


class StateOffload:
    """Moves one rank's states.

    Args:
        engine: the training engine, at ZeRO stage 2.
        frozen: what does not train and is whole: reference, running average, plug-ins' models.
        device: where the states belong.
    """

    def __init__(self, engine: Any, frozen: Sequence[Movable], device: torch.device) -> None:
        self.engine, self.frozen, self.device = engine, list(frozen), device

    def leave(self, part: Part) -> None:
        """Move a part to the machine's memory; what has left already stays there."""
        if part == "weights" or not self.engine.optimizer.cpu_offload:
            # Pinned memory makes the way back faster, and only means something beside a GPU.
            is_pinned = self.device.type == "cuda"
            self.engine.offload_states(include=STATES[part], pin_memory=is_pinned)
        if part == "optimizer":
            self.move_frozen(torch.device("cpu"))
        self.free_cache()

    def come_back(self) -> None:
        """Reload everything."""
        self.engine.reload_states()
        self.move_frozen(self.device)

    def move_frozen(self, device: torch.device) -> None:
        for model in self.frozen:
            model.to(device)

    def free_cache(self) -> None:
        """Free the allocator's empty blocks for other processes on the GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()

    def take_peak(self) -> Metrics:
        """The most that this process's tensors took of the GPU since the last call."""
        if self.device.type != "cuda":
            return {}
        peak = torch.cuda.max_memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        return {"memory/learner_peak_gib": (peak / 2**30, 1.0)}

    @property
    def held_bytes(self) -> int:
        """Of the GPU's memory, taken by this process's tensors and by blocks kept for more."""
        return torch.cuda.memory_reserved(self.device) if self.device.type == "cuda" else 0
