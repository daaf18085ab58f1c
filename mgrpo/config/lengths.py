"""How many tokens a sequence of each layer can need: plain arithmetic, no tokenizer.

    layer 1         prompt + completion
    layer k         prompt + overhead + quoted attempt + guidance + feedback + completion
    self_continue   the layer before, whole, + guidance + feedback + completion

The quoted attempt is at most max_quote_tokens, or the layer before's max_completion_tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from mgrpo.config.layers import LaterLayer, LayerConfig, SelfContinue


def layer_lengths(
    layers: Sequence[LayerConfig],
    max_prompt_tokens: int,
    guidance_tokens: int,
    overhead_tokens: int = 0,
) -> list[int]:
    """Longest sequence of each layer, prompt and completion together, in tokens.

    Args:
        layers: the chain.
        max_prompt_tokens: longest layer-1 prompt.
        guidance_tokens: longest guidance, without the check's feedback.
        overhead_tokens: what a correction's prompt holds beyond the layer-1 prompt, the attempt
            and the guidance: a longer system turn, further turns' marks, the cut mark.
    """
    lengths: list[int] = []
    for depth, layer in enumerate(layers):
        if not isinstance(layer, LaterLayer):
            prompt = max_prompt_tokens
        elif isinstance(layer.layout, SelfContinue):
            prompt = lengths[-1] + guidance_tokens + layer.guidance.feedback_tokens
        else:
            attempt = quoted_tokens(layer, layers[depth - 1])
            guided = guidance_tokens + layer.guidance.feedback_tokens
            prompt = max_prompt_tokens + overhead_tokens + attempt + guided
        lengths.append(prompt + layer.max_completion_tokens)
    return lengths


def quoted_tokens(layer: LaterLayer, layer_before: LayerConfig) -> int:
    """Most tokens of an attempt that a correction's prompt quotes."""
    most = layer_before.max_completion_tokens
    if isinstance(layer.layout, SelfContinue) or layer.layout.max_quote_tokens is None:
        return most
    return min(layer.layout.max_quote_tokens, most)


def context_needed(
    layers: Sequence[LayerConfig],
    max_prompt_tokens: int,
    guidance_tokens: int,
    overhead_tokens: int = 0,
) -> int:
    """Longest sequence of any layer, in tokens: what an engine's max_model_len must hold."""
    return max(layer_lengths(layers, max_prompt_tokens, guidance_tokens, overhead_tokens))
