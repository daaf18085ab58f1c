"""How many tokens a sequence of each layer can need: plain arithmetic, no tokenizer.

    layer 1         prompt + completion
    layer k         prompt + overhead + quoted attempt + guidance + completion
    self_continue   the layer before, whole, + guidance + completion

The quoted attempt is at most max_quote_tokens, or the layer before's max_completion_tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mgrpo.config.layers import LayerConfig
    from mgrpo.config.run import RunConfig


def layer_lengths(
    config: RunConfig, max_prompt_tokens: int, guidance_tokens: int, overhead_tokens: int = 0
) -> list[int]:
    """Longest sequence of each layer, prompt and completion together, in tokens.

    Args:
        config: the recipe.
        max_prompt_tokens: longest layer-1 prompt.
        guidance_tokens: longest guidance phrase.
        overhead_tokens: what a correction's prompt holds beyond the layer-1 prompt, the attempt
            and the guidance: a longer system turn, further turns' marks, the cut mark.
    """
    lengths: list[int] = []
    for depth, layer in enumerate(config.layers):
        if depth == 0:
            prompt = max_prompt_tokens
        elif layer.layout == "self_continue":
            prompt = lengths[-1] + guidance_tokens
        else:
            attempt = quoted_tokens(layer, config.layers[depth - 1])
            prompt = max_prompt_tokens + overhead_tokens + attempt + guidance_tokens
        lengths.append(prompt + layer.max_completion_tokens)
    return lengths


def quoted_tokens(layer: LayerConfig, layer_before: LayerConfig) -> int:
    """Most tokens of an attempt that a correction's prompt quotes."""
    if layer.max_quote_tokens is None:
        return layer_before.max_completion_tokens
    return min(layer.max_quote_tokens, layer_before.max_completion_tokens)


def context_needed(
    config: RunConfig, max_prompt_tokens: int, guidance_tokens: int, overhead_tokens: int = 0
) -> int:
    """Longest sequence of any layer, in tokens: what an engine's max_model_len must hold."""
    return max(layer_lengths(config, max_prompt_tokens, guidance_tokens, overhead_tokens))
