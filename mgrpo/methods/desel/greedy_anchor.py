"""Measures how likely the greedy answer is, for `desel`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import PositiveInt

from actors.plugin import RolloutPlugin, RolloutTools
from mgrpo.config import MethodView
from mgrpo.config.base import StrictConfig
from mgrpo.errors import Faults, must_be
from mgrpo.types import Completion, Problem

GREEDY_LOGPROB = "greedy_logprob_mean"


class GreedyAnchorSettings(StrictConfig):
    """Keys of greedy_anchor."""

    max_tokens: PositiveInt = 1024
    """Longest greedy answer, in tokens."""


class GreedyAnchor(RolloutPlugin):
    """Answers every prompt once more without chance, and writes the mean log-probability of that
    answer's tokens into the metadata of the prompt's completions. The answer itself is not trained
    and not compared."""

    Settings: ClassVar[type[StrictConfig]] = GreedyAnchorSettings
    read_by: ClassVar[tuple[str, ...]] = ("desel",)

    @classmethod
    def faults(
        cls, settings: GreedyAnchorSettings, layers: frozenset[int], method: MethodView
    ) -> Faults:
        why = "likelihoods at it cannot be compared with a greedy answer's, which are at 1."
        hint = "Set it to 1, or use desel with anchor: max_likelihood."
        yield from must_be("(sampling.temperature)", method.sampling.temperature, 1, why, hint)

    async def after_sampling(
        self, tools: RolloutTools, layer: int, problem: Problem, completions: Sequence[Completion]
    ) -> list[Completion]:
        given = list(completions)
        if not given:
            return given
        (anchor,) = await tools.generate(
            layer,
            given[0].prompt,
            num_samples=1,
            max_tokens=self.settings.max_tokens,
            seed=tools.seed,
            temperature=0.0,
        )
        mean = float(np.mean(anchor.logprobs, dtype=np.float64)) if len(anchor.logprobs) else 0.0
        return [replace(one, metadata={**one.metadata, GREEDY_LOGPROB: mean}) for one in given]
