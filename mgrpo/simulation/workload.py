"""What a step samples and trains: problems, their layers, and the lengths of completions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from mgrpo.config.base import StrictConfig


class FixedLengths(StrictConfig):
    """Every completion has the same length."""

    type: Literal["fixed"] = "fixed"
    tokens: PositiveInt


class LognormalLengths(StrictConfig):
    """Lengths of a lognormal distribution, cut at the layer's maximum."""

    type: Literal["lognormal"] = "lognormal"
    mean: PositiveFloat
    """Mean in tokens, before the cut."""
    sigma: NonNegativeFloat = 0.6
    """Standard deviation of the logarithm."""


class EmpiricalLengths(StrictConfig):
    """Lengths drawn from observed ones."""

    type: Literal["empirical"] = "empirical"
    tokens: list[PositiveInt] = Field(min_length=1)


Lengths = Annotated[FixedLengths | LognormalLengths | EmpiricalLengths, Field(discriminator="type")]


def draw_lengths(
    lengths: Lengths, count: int, most: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """[count] completion lengths in tokens, from 1 to `most`."""
    if isinstance(lengths, FixedLengths):
        drawn = np.full(count, lengths.tokens)
    elif isinstance(lengths, EmpiricalLengths):
        drawn = rng.choice(lengths.tokens, count)
    else:
        location = math.log(lengths.mean) - lengths.sigma**2 / 2
        drawn = np.rint(rng.lognormal(location, lengths.sigma, count)).astype(np.int64)
    return np.clip(drawn, 1, most)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWork:
    """One layer of the chain."""

    name: str
    group_size: int  # completions per prompt
    max_tokens: int  # of a completion
    lengths: Lengths
    added_prompt_tokens: int = 0  # of a correction's prompt beside the problem and the attempt
    max_parents: int | None = None  # attempts of a problem that are corrected; None: all
    parent_share: float = 1.0  # of those, the share that is
    skips_truncated: bool = False  # attempts of the maximum length are not corrected
    trained_share: float = 1.0  # of its completions; 0: the layer does not train


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A step."""

    prompts_per_step: int
    prompt_tokens: int  # of a problem
    layers: Sequence[LayerWork]  # the first solves, every later one corrects the one before
    merges_prefixes: bool = True  # the learner computes common prefixes of a group once


class Tree:
    """One problem of a step, with the lengths of its completions, drawn layer by layer.

    Draws depend on the seed, the step and the slot alone: all layouts and orders of a step have the
    same work.
    """

    __slots__ = (
        "attempts",
        "depth",
        "learner_tokens",
        "num_open",
        "rng",
        "sampled",
        "step",
        "work",
    )

    def __init__(self, work: Workload, *, seed: int, step: int, slot: int) -> None:
        self.work, self.step = work, step
        self.rng = np.random.default_rng((seed, step, slot))
        self.depth = -1
        self.num_open = 0  # groups that are not yet done
        self.attempts: list[int] = []  # lengths of the layer that was drawn last
        self.sampled = 0  # completion tokens
        self.learner_tokens = 0.0

    def next_layer(self) -> list[tuple[int, list[int]]]:
        """The groups of the next layer: prompt tokens, and the length of each completion.

        [] after the last layer, or where no attempt is to be corrected.
        """
        self.depth += 1
        if self.depth == len(self.work.layers):
            return []
        layer = self.work.layers[self.depth]
        prompts = [self.work.prompt_tokens]
        if self.depth > 0:
            fixed = self.work.prompt_tokens + layer.added_prompt_tokens
            prompts = [fixed + length for length in self.parents(layer)]
        drawn = draw_lengths(
            layer.lengths, len(prompts) * layer.group_size, layer.max_tokens, self.rng
        )
        self.attempts = drawn.tolist()
        size = layer.group_size
        groups = [
            (prompt, self.attempts[number * size : (number + 1) * size])
            for number, prompt in enumerate(prompts)
        ]
        for prompt, lengths in groups:
            prompt_tokens = prompt * (1 if self.work.merges_prefixes else size)
            self.sampled += sum(lengths)
            self.learner_tokens += layer.trained_share * (prompt_tokens + sum(lengths))
        return groups

    def parents(self, layer: LayerWork) -> list[int]:
        """Lengths of the attempts that are corrected."""
        before = self.work.layers[self.depth - 1]
        usable = [
            length
            for length in self.attempts
            if not (layer.skips_truncated and length >= before.max_tokens)
        ]
        if layer.parent_share < 1:
            kept = self.rng.random(len(usable)) < layer.parent_share
            usable = [length for length, is_kept in zip(usable, kept, strict=True) if is_kept]
        return usable[: layer.max_parents]
