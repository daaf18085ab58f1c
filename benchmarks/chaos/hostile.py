"""Orders that a run takes from outside, and what spoils its log-probabilities by them.

A file in the folder of the environment variable MGRPO_CHAOS_ORDERS is an order, which the first
process to see it takes away and carries out.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from actors.plugin import RolloutPlugin, RolloutTools
from mgrpo.types import Completion

ORDERS_VARIABLE = "MGRPO_CHAOS_ORDERS"
ARRIVING, LOADED = "weights-arriving", "weights-loaded"
NOT_FINITE, SHIFTED = "logprobs-not-finite", "logprobs-shifted"


def give_order(folder: Path, name: str) -> None:
    (folder / name).touch()


def take_order(name: str) -> bool:
    """Whether the order was there; one of all processes takes it."""
    try:
        (Path(os.environ[ORDERS_VARIABLE]) / name).unlink()
    except (FileNotFoundError, KeyError):
        return False
    return True


class SpoiledLogprobs(RolloutPlugin):
    """Spoils the recorded log-probabilities of one completion, when it is told to."""

    def annotate(self, tools: RolloutTools, completion: Completion) -> Completion:
        spoiled = completion.rollout_logprobs
        if take_order(NOT_FINITE):
            spoiled = np.full_like(spoiled, -np.inf)
        if take_order(SHIFTED):
            spoiled = spoiled - np.float32(5.0)
        return replace(completion, rollout_logprobs=spoiled)
