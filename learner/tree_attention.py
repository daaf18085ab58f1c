"""Runs a Hugging Face model once per distinct token of a prefix tree.

Everything in a decoder except attention treats tokens one by one, so it runs on the tree's
nodes. For attention the nodes' queries, keys and values are laid out as whole rows again, which
lets the plain causal kernels do it, and each node takes its output from one of its rows. Exactly
the unmerged computation, on any device, without a mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from learner.prefix_tree import PrefixTree

ATTENTION_NAME = "mgrpo_prefix_tree"


def why_not_mergeable(causal_lm: Any) -> str:
    """What keeps this architecture from reading a prefix tree, or "" where nothing does."""
    config = causal_lm.config
    if not getattr(causal_lm, "_supports_attention_backend", False):
        return "its attention cannot be replaced in transformers"
    if config._attn_implementation != "sdpa":
        return f"its attention is {config._attn_implementation}, not sdpa"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return f"it has layers of {', '.join(sorted(kinds))}"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return f"its attention is limited to {config.sliding_window} tokens"
    return ""


def use_tree_attention(causal_lm: Any) -> None:
    """Let the model take `prefix_tree=`; calls without it run as before."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION_NAME, tree_attention)
    causal_lm.set_attn_implementation(ATTENTION_NAME)


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    prefix_tree: PrefixTree | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention over a tree's rows, in the form that transformers calls.

    Args:
        query: [1, heads, U, D] over the tree's nodes; without a tree [b, heads, T, D].
        key, value: the same with their own number of heads.

    Returns:
        [1, U, heads, D] (or [b, T, heads, D]) and no attention weights.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if prefix_tree is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    by_node = [one[0].transpose(0, 1).flatten(1) for one in (query, key, value)]  # [U, heads * D]
    widths = [one.shape[-1] for one in (query, key, value)]
    outputs = []
    for nodes in prefix_tree.buckets:
        # An embedding's backward pass adds up what a node's rows send back, in float32.
        rows = [
            functional.embedding(nodes, table).unflatten(-1, (-1, width)).transpose(1, 2)
            for table, width in zip(by_node, widths, strict=True)
        ]  # [b, heads, T, D] each
        output, _ = sdpa_attention_forward(module, *rows, None, **kwargs)  # [b, T, heads, D]
        outputs.append(output.flatten(0, 1))
    whole = torch.cat(outputs)  # [places, heads, D]
    merged = functional.embedding(prefix_tree.found_at, whole.flatten(1))  # [U, heads * D]
    return merged.view(1, -1, *whole.shape[1:]), None
