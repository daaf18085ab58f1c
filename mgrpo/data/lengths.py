"""Prompt lengths of a run, measured with its tokenizer.

`context_needed` computes the engines' context from these numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from actors.chat_format import Tokenizer
from actors.templates import PromptBuilder, guidance_text
from mgrpo.config.layers import LaterLayer, LayerConfig, SelfContinue, later_layers
from mgrpo.config.lengths import context_needed, layer_lengths
from mgrpo.types import Problem

__all__ = [
    "PromptLengths",
    "characters_of",
    "context_needed",
    "layer_lengths",
    "measure_prompts",
]

NUM_LONGEST = 5  # prompts on which the overhead is measured; it hardly depends on the question
MOST_HELD = 1000  # prompts in memory, of which the longest are kept
Measured = tuple[int, Problem]
"""Tokens of a layer-1 prompt, and its problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLengths:
    """The arguments of `context_needed`, in tokens."""

    max_prompt_tokens: int
    guidance_tokens: int
    overhead_tokens: int

    def context_needed(self, layers: Sequence[LayerConfig]) -> int:
        return context_needed(
            layers, self.max_prompt_tokens, self.guidance_tokens, self.overhead_tokens
        )

    def layer_lengths(self, layers: Sequence[LayerConfig]) -> list[int]:
        return layer_lengths(
            layers, self.max_prompt_tokens, self.guidance_tokens, self.overhead_tokens
        )


def characters_of(tokenizer: Tokenizer, num_tokens: int) -> float:
    """Maximum characters of a text with that many tokens: each as long as the vocabulary's longest.

    Infinite if the tokenizer has no vocabulary.
    """
    get_vocabulary = getattr(tokenizer, "get_vocab", None)
    if get_vocabulary is None:
        return math.inf
    return num_tokens * max(map(len, get_vocabulary()), default=1)


def measure_prompts(
    builder: PromptBuilder,
    layers: Sequence[LayerConfig],
    problems: Sequence[Problem],
    measured: Iterable[Measured] = (),
) -> PromptLengths:
    """Measure the layer-1 prompts of all `problems`, and what corrections add to them.

    Args:
        measured: the longest prompts of further problems, as `LongestPrompts` has them.

    Raises:
        ModelError: the chat template cannot render a layer's turns.
        DataError: the chat template loses the attempt.
    """
    first, corrections = layers[0], later_layers(layers)
    longest = LongestPrompts()
    for tokens, problem in measured:
        longest.add(tokens, problem)
    for problem in problems:
        longest.add(len(builder.solve_prompt(first, problem)), problem)
    found = longest.found()
    guidance = max(
        (
            len(builder.with_feedback(f"\n{text}", []))
            for layer in corrections
            for text in guidance_texts(layer)
        ),
        default=0,
    )
    return PromptLengths(
        max_prompt_tokens=max(tokens for tokens, _ in found),
        guidance_tokens=guidance,
        overhead_tokens=max(
            (
                correction_overhead(builder, corrections, problem) - solve - guidance
                for solve, problem in found
            ),
            default=0,
        )
        if corrections
        else 0,
    )


class LongestPrompts:
    """The longest layer-1 prompts of many problems: of those with a system turn of their own, which
    takes the place of the layers', so that corrections add another overhead, and of the others."""

    def __init__(self) -> None:
        self.by_kind: dict[bool, list[Measured]] = {True: [], False: []}

    def add(self, tokens: int, problem: Problem) -> None:
        kind = self.by_kind[problem.has_system_turn]
        kind.append((tokens, problem))
        if len(kind) > MOST_HELD:
            kind[:] = longest_of(kind)

    def found(self) -> list[Measured]:
        return [pair for kind in self.by_kind.values() for pair in longest_of(kind)]


def longest_of(measured: list[Measured]) -> list[Measured]:
    """Those with the most tokens."""
    return sorted(measured, key=lambda one: (one[0], one[1].question), reverse=True)[:NUM_LONGEST]


def guidance_texts(layer: LaterLayer) -> list[str]:
    """All that may open the layer's corrections, without a check's feedback."""
    texts = [
        guidance_text(layer, phrase, has_feedback=has_feedback)
        for phrase in layer.guidance.phrases
        for has_feedback in (False, True)
    ]
    return list(dict.fromkeys(texts))


def correction_overhead(
    builder: PromptBuilder, layers: Sequence[LaterLayer], problem: Problem
) -> int:
    """Tokens of the longest correction prompt of an empty attempt, over layers and guidances."""
    lengths = [0]
    for layer in layers:
        if isinstance(layer.layout, SelfContinue):
            continue  # its prompt is the attempt's own, which is counted whole
        cut_mark = len(builder.cut_mark_ids) if layer.layout.max_quote_tokens is not None else 0
        lengths += [
            cut_mark
            + len(
                builder.correction_prompt(
                    layer, problem, parent_prompt_ids=[], parent_ids=[], guidance=text
                )
            )
            for text in guidance_texts(layer)
        ]
    return max(lengths)
