"""Reads DeepSpeed's shards as tensors and plain values: a checkpoint can't run code.

DeepSpeed loads them as pickles of any kind, so that whoever may write into a run's folder or its
storage could run code in the learner. Here a shard holds what is listed below, or is refused.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from mgrpo.errors import LearnerError, RunDirectoryError

KNOWN: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    LossScaler,
    ZeroStageEnum,
    fragment_address,
]
"""Classes in DeepSpeed's states besides tensors, containers and numbers. Making one runs no code
that a file chooses."""
PLAIN = (type(None), bool, int, float, str, bytes)


class PlainStates(TorchCheckpointEngine):
    """What `DeepSpeedEngine` saves and loads its shards with."""

    def load(self, path: str, map_location: Any = None) -> Any:
        """
        Raises:
            RunDirectoryError: the file holds objects that are not known.
        """
        try:
            with torch.serialization.safe_globals(KNOWN):
                return torch.load(path, map_location=map_location, weights_only=True)
        except pickle.UnpicklingError as error:
            reason = str(error).partition("\n")[0]
            raise RunDirectoryError(
                f"{path} is not loaded, because it holds more than tensors and plain values: "
                f"{reason} Objects in a checkpoint could run code. If a plug-in of yours keeps it, "
                "let its state_dict return tensors, numbers, texts, lists and dicts; otherwise "
                "somebody has changed the file."
            ) from error


def refuse_other_objects(state: object, owner: str) -> None:
    """Raise LearnerError if a state that is to be saved could not be loaded again.

    Args:
        owner: what to call it in the message.
    """
    other = next(other_objects(state, ""), None)
    if other is not None:
        place, kind = other[0] or "its top", type(other[1]).__name__
        raise LearnerError(
            f"The state_dict of {owner} has a {kind} at {place}. "
            "Let it return tensors, numbers, texts, lists and dicts: nothing else is loaded from a "
            "checkpoint, because it could run code."
        )


def other_objects(state: object, path: str) -> Iterator[tuple[str, object]]:
    """What of a state is neither plain nor a container, by its place."""
    if isinstance(state, dict):
        for key, value in state.items():
            if not isinstance(key, (str, int)):
                yield f"{path}[{key!r}]", key
            yield from other_objects(value, f"{path}[{key!r}]")
    elif isinstance(state, (list, tuple)):
        for place, value in enumerate(state):
            yield from other_objects(value, f"{path}[{place}]")
    elif type(state) not in PLAIN and not isinstance(state, torch.Tensor):
        yield path, state
