"""States of plug-ins in a file, as tensors and plain values: a checkpoint can't run code.

A pickle of any kind would let whoever may write into a run's folder or its storage run code in the
learner. Here a file holds what is listed below, or is refused.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from mgrpo.errors import LearnerError, RunDirectoryError

PLAIN = (type(None), bool, int, float, str, bytes)
NAMED = re.compile(r"GLOBAL (\S+)")
"""What a pickle asks for, in torch's refusal of it."""


def save_plain(state: object, file: Path) -> None:
    """Write a state in which `refuse_other_objects` finds none.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    try:
        torch.save(state, file)
    except (OSError, RuntimeError) as error:
        raise RunDirectoryError(f"{file} cannot be written: {error}") from error


def load_plain(file: Path) -> Any:
    """What `save_plain` wrote.

    Raises:
        RunDirectoryError: the file is missing or damaged, or holds other objects.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = NAMED.search(str(error))  # the rest is torch's advice to load it all the same
        named = f" ({found[1]})" if found else ""
        raise RunDirectoryError(
            f"{file} is not loaded, because it holds more than tensors and plain values{named}. "
            "Objects in a checkpoint could run code. If a plug-in of yours keeps it, "
            "let its state_dict return tensors, numbers, texts, lists and dicts; otherwise "
            "somebody has changed the file."
        ) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise RunDirectoryError(f"{file} cannot be read: {error}") from error


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
