"""What one rank holds of the weights that train and of the optimizer's state, at any ZeRO stage.

At stage 0 every rank has all of both. At 1 and 2 the float32 weights of all parameters lie end to
end in one flat tensor, of which each rank has an equal part; at 3 each parameter is cut into such
parts (https://arxiv.org/abs/1910.02054). The optimizer steps these tensors and has its states in
their form, so that a piece of a weight lies at the same place of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from learner.state_files import Piece, Shard, StateReader, Values, padded_piece, share
from mgrpo.errors import LearnerError

WEIGHTS = "weights"
"""The kind of a checkpoint's files with the float32 weights; those of states have their names."""


@dataclass(frozen=True)
class Held:
    """Where this rank has a piece of a weight."""

    piece: Piece
    flat: Tensor  # that the optimizer steps
    at: int  # where in it, as a row of numbers, the piece begins

    def of(self, numbers: Tensor) -> Tensor:
        """The piece of the flat tensor or of a state in its form, as a view."""
        return numbers.detach().view(-1)[self.at : self.at + self.piece.numel]


class ZeroParts:
    """One rank's part of the weights and the optimizer's state."""

    def __init__(self, engine: Any, optimizer: torch.optim.Optimizer, shard: Shard) -> None:
        """
        Args:
            engine: as it starts: offloading takes away what DeepSpeed knows of the places.
            optimizer: the one that was given to it.

        Raises:
            LearnerError: the optimizer's state is where it cannot be read.
        """
        self.engine, self.optimizer, self.shard = engine, optimizer, shard
        self.sizes = {
            name: whole_numel(one)
            for name, one in engine.module.named_parameters()
            if one.requires_grad and whole_numel(one)
        }
        if getattr(engine.optimizer, "swap_optimizer", False):
            raise LearnerError(
                "learner.deepspeed offloads the optimizer to nvme, from where its state cannot be "
                "put into a checkpoint. Set zero_optimization.offload_optimizer.device to cpu."
            )
        self.held = list(self._find())

    def save(self, directory: Path) -> None:
        """Write this rank's files.

        Raises:
            RunDirectoryError: they cannot be written.
        """
        written = [one for one in self.held if one.piece.numel]
        if self.shard.zero_stage == 0:
            written = [cut(one, self.shard) for one in written]
        states = [(one, self.optimizer.state.get(one.flat, {})) for one in written]
        self.shard.write(
            directory,
            WEIGHTS,
            [(one.piece, one.of(one.flat)) for one in written],
            {one.piece.name: scalars(state) for one, state in states},
        )
        for kind in sorted({key for one, state in states for key in in_form_of(one.flat, state)}):
            having = [(one, state) for one, state in states if kind in state]
            self.shard.write(
                directory, kind, [(one.piece, one.of(state[kind])) for one, state in having]
            )

    @torch.no_grad()
    def load(self, directory: Path) -> None:
        """Go on from the files of all ranks that saved, whatever their number and ZeRO stage.

        Raises:
            RunDirectoryError: files are missing or damaged, or are of another policy.
        """
        with StateReader(directory, WEIGHTS) as weights:
            weights.refuse_other_weights(self.sizes)
            for one in self.held:
                weights.read(one.piece, one.of(one.flat))
            values = dict(weights.values)
        self._load_states(directory, values)
        self._show()

    def _load_states(self, directory: Path, values: Mapping[str, Values]) -> None:
        kinds = kinds_in(directory) - {WEIGHTS}
        self.optimizer.state.clear()
        for kind in kinds:
            with StateReader(directory, kind) as saved:
                for one in self.held:
                    if one.piece.name in saved.pieces:
                        state = self.optimizer.state[one.flat]
                        numbers = state.setdefault(kind, torch.zeros_like(one.flat))
                        saved.read(one.piece, one.of(numbers))
        for one in self.held:
            state = self.optimizer.state[one.flat]
            for key, value in values.get(one.piece.name, {}).items():
                # A flat tensor has one number for all its weights, which at stage 0 have their own.
                state[key] = self._scalar(max(value, float(state.get(key, value))), one.flat)

    def _scalar(self, value: float, flat: Tensor) -> Tensor:
        """A number of steps, where the optimizer's kind of step has it."""
        on_device = self.optimizer.defaults.get("fused") or self.optimizer.defaults.get(
            "capturable"
        )
        return torch.tensor(value, dtype=torch.float32, device=flat.device if on_device else "cpu")

    def _show(self) -> None:
        """Let the next pass compute with the weights that were loaded."""
        optimizer = self.engine.optimizer
        if self.shard.zero_stage in (1, 2):
            optimizer.update_lp_params()
        elif self.shard.zero_stage == 3:
            optimizer.checkpoint_event_prologue()
            for group in range(len(optimizer.fp32_partitioned_groups_flat)):
                optimizer._reassign_or_swap_out_partitioned_parameters(group)
            optimizer.checkpoint_event_epilogue()

    def _find(self) -> Iterator[Held]:
        """The places of this rank's pieces, as DeepSpeed knows them."""
        stage, zero = self.shard.zero_stage, self.engine.optimizer
        for name, one in self.engine.module.named_parameters():
            if name not in self.sizes:
                continue
            if stage == 0:
                yield Held(Piece(name, 0, one.numel(), one.numel()), one, 0)
            elif stage == 3:
                group, at, part = zero.grad_position[zero.get_param_id(one)]
                piece = padded_piece(name, self.sizes[name], part, self.shard.rank)
                yield Held(piece, zero.fp32_partitioned_groups_flat[group], at)
            elif one._hp_mapping is not None:
                place, mapping = one._hp_mapping.lp_fragment_address, one._hp_mapping
                flat = self.optimizer.param_groups[mapping.param_group_index]["params"][0]
                piece = Piece(name, place.start, place.numel, self.sizes[name])
                yield Held(piece, flat, mapping.hp_fragment_address.start)


def whole_numel(parameter: Any) -> int:
    """Numbers of a parameter, also where ZeRO-3 keeps a part of it here."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def own_numbers(parameter: Any) -> Tensor:
    """Those of a parameter that this rank holds; of a sharded one (ZeRO-3) without the padding
    after its last number, which is memory that DeepSpeed leaves as it was.

    Returns:
        [numbers of the piece] where it is sharded, else the parameter.
    """
    part: Tensor | None = getattr(parameter, "ds_tensor", None)
    if part is None:
        return cast(Tensor, parameter)
    piece = padded_piece("", parameter.ds_numel, part.numel(), parameter.ds_zero_partition_rank)
    return part[: piece.numel]


def cut(held: Held, shard: Shard) -> Held:
    """This rank's share of a piece that every rank holds."""
    first, last = share(held.piece.numel, shard.rank, shard.num_ranks)
    piece = Piece(held.piece.name, held.piece.start + first, last - first, held.piece.whole)
    return Held(piece, held.flat, held.at + first)


def in_form_of(flat: Tensor, state: Mapping[str, object]) -> list[str]:
    """The keys of an optimizer's states that have a number for each of the weight's."""
    return [
        key
        for key, value in state.items()
        if isinstance(value, Tensor) and value.dim() > 0 and value.shape == flat.shape
    ]


def scalars(state: Mapping[str, object]) -> dict[str, float]:
    """An optimizer's state of one weight besides those."""
    return {
        key: float(value)
        for key, value in state.items()
        if isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.dim() == 0)
    }


def kinds_in(directory: Path) -> set[str]:
    return {file.name.partition("-zero")[0] for file in directory.glob("*-zero*.safetensors")}
