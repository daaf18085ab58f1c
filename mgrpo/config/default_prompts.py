"""System turns of layers that set none, by what the checks read.

Checks that read a \\boxed{} result have the prompts of `layers.py`, which are the layers' own
defaults. Here are those for other checks.
"""

from __future__ import annotations

from collections.abc import Sequence

from mgrpo.config.layers import LaterLayer, LayerConfig, SelfContinue, VerifyLayer
from mgrpo.config.rewards import RewardsConfig

READ_BOXES = ("math_answer", "format", "reasoning_gym")
"""Built-in checks that read a \\boxed{} result."""
READ_PROGRAMS = ("code_answer",)
"""Built-in checks that run the last block of code."""
PROGRAM_PROMPTS = (
    "You write Python programs. End with one block of code that holds the whole program.",
    "You are re-examining an attempt at a programming task. Look for any mistake. If one exists, "
    "write a repaired program; if none exists, repeat the program. End with one block of code that "
    "holds the whole program.",
)
OTHER_PROMPTS = (
    "",
    "You are re-examining an attempt at a task. Look for any mistake. If one exists, write a "
    "repaired answer; if none exists, repeat the answer.",
)
"""Nothing but the problem itself: only the recipe knows what its own checks read."""


def with_default_prompts(
    layers: Sequence[LayerConfig], rewards: RewardsConfig
) -> list[LayerConfig]:
    """The layers with the system turns that suit the checks, where they set none."""
    functions = {term.function for term in rewards.terms}
    if functions & set(READ_BOXES):
        return list(layers)
    solve, review = PROGRAM_PROMPTS if functions & set(READ_PROGRAMS) else OTHER_PROMPTS
    return [
        layer
        if layer.system_prompt is not None or suits_any_check(layer)
        else layer.model_copy(update={"system_prompt": review if depth else solve})
        for depth, layer in enumerate(layers)
    ]


def suits_any_check(layer: LayerConfig) -> bool:
    """Whether the layer has no turn of its own, and so no system turn, or gives a verdict, which no
    check reads."""
    continues_a_turn = isinstance(layer, LaterLayer) and isinstance(layer.layout, SelfContinue)
    return continues_a_turn or isinstance(layer, VerifyLayer)
