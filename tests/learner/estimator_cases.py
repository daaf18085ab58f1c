"""Advantages through the step's batch, of completions of few tokens."""

from __future__ import annotations

from learner.batch import build_batch
from mgrpo.config import ObjectiveConfig
from tests.learner.builders import long, solve_layer
from tests.learner.exact import UNCORRECTED

SETTINGS = ObjectiveConfig(**UNCORRECTED)


def groups(*rewards, lengths=None):
    """One completion for each reward of each group, of one token unless told otherwise."""
    flat = [
        (name, number, reward)
        for name, group in zip("qrs", rewards, strict=False)
        for number, reward in enumerate(group, start=1)
    ]
    sizes = lengths or [1] * len(flat)
    return [
        long(f"{name}/{number}", reward, size)
        for (name, number, reward), size in zip(flat, sizes, strict=True)
    ]


def batch_of(completions, *plugins, measurements=None, **layer):
    return build_batch(
        completions, [solve_layer(**layer)], SETTINGS, plugins=plugins, measurements=measurements
    )


def advantages(completions, *plugins, **changes):
    """One for each completion, the same on all of its tokens."""
    rows = batch_of(completions, *plugins, **changes).all_rows
    assert all(len(set(row.advantages)) == 1 for row in rows)
    return [row.advantages[0] for row in rows]
