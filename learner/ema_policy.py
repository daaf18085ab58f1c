"""The policy's running average: a second, frozen policy that follows the first one slowly.

Its weights are sharded as the policy's are, parameter by parameter, so under ZeRO-3 each rank moves
the shard that it holds towards the policy's shard of the same place, and nothing is gathered. It is
a model of its own, with its own DeepSpeed engine under ZeRO-3, rather than numbers that take the
policy's place for a pass and give it back: that would stay sharded too, but small weights, which
ZeRO-3 keeps whole between passes, and whatever fails half way would leave the wrong policy behind.

The average is kept in float32. With a decay near 1 a step is smaller than bfloat16 can tell; there
the model's own weights are copies, rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from learner.plugin import EmaSchedule, LearnerPlugin
from learner.state_files import Shard, StateReader, padded_piece
from learner.zero_parts import Held, cut, whole_numel
from mgrpo.errors import LearnerError

FOLDER, KIND = "ema", "average"
"""Of its files, inside a checkpoint of the learner."""


def ema_schedule(plugins: Sequence[LearnerPlugin]) -> EmaSchedule | None:
    """The average that a recipe's plug-ins want; None where none of them does.

    Raises:
        LearnerError: they require different ones, or measure with one that no plug-in defines.
    """
    wanted = {schedule for plugin in plugins if (schedule := plugin.ema()) is not None}
    if len(wanted) > 1:
        raise LearnerError(
            f"Plug-ins require different averages of the policy: {', '.join(map(str, wanted))}. A "
            "run "
            "keeps one: give them the same settings, or remove one."
        )
    is_measured = any("ema_logprobs" in plugin.wanted_measurements() for plugin in plugins)
    if is_measured and not wanted:
        raise LearnerError(
            "A plug-in requires ema_logprobs and does not say of which average: ema."
        )
    return wanted.pop() if wanted else None


class EmaPolicy:
    """The average of one policy, as one rank holds it."""

    def __init__(self, schedule: EmaSchedule, *, policy: nn.Module, model: Any) -> None:
        """
        Args:
            policy: the one that trains.
            model: a model of the same kind, or its engine, sharded alike; called to read with the
                average. Its weights become the average.
        """
        self.schedule, self.model = schedule, model
        self.policy, self.average = policy, getattr(model, "module", model)
        parameters = list(self.average.parameters())
        self.is_sharded = any(hasattr(one, "ds_tensor") for one in parameters)
        for one, other in zip(policy.parameters(), parameters, strict=True):
            refuse_other_shards(one, other)
        # What bfloat16 cannot hold; None where the model's own weights are float32.
        self._exact = [
            None if shard(one).dtype == torch.float32 else shard(one).float() for one in parameters
        ]

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """Move towards the policy, if it is time after so many updates of the run."""
        if num_updates % self.schedule.every_updates != 0:
            return
        for (_, mine), new in zip(self._values(), self.policy.parameters(), strict=True):
            mine.lerp_(shard(new).to(mine.dtype), 1 - self.schedule.decay)
        self._show()

    def to(self, device: torch.device) -> None:
        """Move all of it. Only where the weights are whole: shards are DeepSpeed's to move."""
        self.average.to(device)
        self._exact = [None if one is None else one.to(device) for one in self._exact]

    def save(self, directory: Path, shard: Shard) -> None:
        """Write this rank's part of the average.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        held = self._held(shard)
        written = held if self.is_sharded else [cut(one, shard) for one in held]
        shard.write(directory / FOLDER, KIND, [(one.piece, one.of(one.flat)) for one in written])

    @torch.no_grad()
    def load(self, directory: Path, shard: Shard) -> None:
        """Continue from the files of all ranks that saved, whatever their number and ZeRO stage.

        Raises:
            RunDirectoryError: there is no average, or it is damaged or of another policy.
        """
        held = self._held(shard)
        with StateReader(directory / FOLDER, KIND) as saved:
            saved.refuse_other_weights({one.piece.name: one.piece.whole for one in held})
            for one in held:
                saved.read(one.piece, one.of(one.flat))
        self._show()

    def _held(self, shard: Shard) -> list[Held]:
        wholes = [whole_numel(one) for one in self.average.parameters()]
        return [
            Held(
                padded_piece(name, whole, value.numel(), shard.rank if self.is_sharded else 0),
                value,
                0,
            )
            for (name, value), whole in zip(self._values(), wholes, strict=True)
        ]

    def _values(self) -> Iterator[tuple[str, Tensor]]:
        """Name and float32 shard of every weight of the average."""
        named = self.average.named_parameters()
        for (name, parameter), exact in zip(named, self._exact, strict=True):
            yield name, shard(parameter) if exact is None else exact

    def _show(self) -> None:
        """Let the next pass see the new values."""
        parameters: list[Any] = list(self.average.parameters())
        for parameter, exact in zip(parameters, self._exact, strict=True):
            if exact is not None:
                shard(parameter).copy_(exact)
        # ZeRO-3 keeps small weights whole after a pass: those copies are old now.
        whole = [one for one in parameters if is_gathered(one)]
        if whole:
            whole[0].partition(whole)


def shard(parameter: Any) -> Tensor:
    """The part of a weight that this rank holds: under ZeRO-3 a flat piece, else all of it."""
    found: Tensor = parameter.ds_tensor if hasattr(parameter, "ds_tensor") else parameter
    return found.data


def refuse_other_shards(policy: object, average: object) -> None:
    """A weight whose shard cannot be moved where it lies.

    Raises:
        LearnerError: with what to change.
    """
    has_copies = getattr(average, "ds_secondary_tensor", None) is not None
    if shard(policy).shape == shard(average).shape and not has_copies:
        return
    raise LearnerError(
        "The policy's average cannot be kept with this learner.deepspeed: a rank's part of a "
        f"weight has shape {tuple(shard(policy).shape)} in the policy and "
        f"{tuple(shard(average).shape)} in the average, or is held twice. Take "
        "zero_hpz_partition_size and offload_param to nvme out of learner.deepspeed."
    )


def is_gathered(parameter: object) -> bool:
    """A ZeRO-3 weight that is whole at the moment."""
    return hasattr(parameter, "ds_status") and parameter.ds_status.name == "AVAILABLE"
