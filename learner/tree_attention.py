"""Runs a Hugging Face model once per distinct token of a prefix tree.

Everything in a decoder except attention treats tokens one by one, so it runs on the tree's
nodes. For attention keys and values are laid out as whole rows again, and each node's query is put
into the first row that has it, behind the same tokens as in any other. The plain causal kernels
then do it, on any device: what a row's new tokens see ends at its lower right corner.

A window that holds the longest row is no window. One that a row outgrows is refused where
attention is computed, and where masks are made, whatever its name in the configuration is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right

from learner.prefix_tree import PrefixTree
from mgrpo.errors import LearnerError

ATTENTION_NAME = "mgrpo_prefix_tree"
WINDOW_NAMES = (
    "sliding_window",
    "sliding_window_size",
    "attention_window_size",
    "attention_chunk_size",
    "local_attention",
    "window_size",
)
"""Under which configurations limit how far back a token sees."""
WINDOWED_KINDS = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers that are full attention where no row is longer than the model's windows."""
REFUSED_ARGUMENTS = ("softcap", "s_aux", "position_bias")
"""Of attention functions: the plain causal kernels would leave these out."""

_tree_now: ContextVar[PrefixTree | None] = ContextVar("prefix tree", default=None)


def text_decoder(causal_lm: Any) -> Any:
    """The part that reads text and knows no vocabulary."""
    decoder = causal_lm.get_decoder()
    while decoder.get_output_embeddings() is not None:  # Llama 4's is a language model again
        decoder = decoder.model
    return decoder


def longest_row(causal_lm: object, max_row_tokens: int | None) -> float:
    """Tokens of the longest row there can be, as the run and the model's context say."""
    context = getattr(text_settings(causal_lm), "max_position_embeddings", None)
    return min([size for size in (max_row_tokens, context) if size], default=math.inf)


def named_windows(causal_lm: object) -> list[int]:
    """How many tokens back attention reaches, each limit that the text's configuration names."""
    config = text_settings(causal_lm)
    if getattr(config, "use_sliding_window", True) is False:
        return []
    found = {getattr(config, name, None) for name in WINDOW_NAMES}
    return sorted(size for size in found if isinstance(size, int) and size > 0)


def windows_of(causal_lm: object, max_row_tokens: int | None = None) -> list[int]:
    """Those limits that are shorter than the longest row."""
    longest = longest_row(causal_lm, max_row_tokens)
    return [size for size in named_windows(causal_lm) if size < longest]


def text_settings(causal_lm: Any) -> Any:
    """The configuration of the text's part, which is nested in that of a model with towers."""
    return causal_lm.config.get_text_config(decoder=True)


def why_not_mergeable(causal_lm: Any, max_row_tokens: int | None = None) -> str:
    """What keeps this architecture from reading a prefix tree, or "" where nothing does.

    Args:
        max_row_tokens: longest row of the run; None: any that the model's context holds.
    """
    decoder = text_decoder(causal_lm)
    if not decoder._can_set_attn_implementation():
        return "its attention cannot be replaced in transformers"
    if getattr(decoder, "_is_stateful", False):
        return "it carries a state from token to token"
    if decoder.config._attn_implementation != "sdpa":
        return f"its attention is {decoder.config._attn_implementation}, not sdpa"
    kinds = set(getattr(text_settings(causal_lm), "layer_types", None) or ["full_attention"])
    known = WINDOWED_KINDS if named_windows(causal_lm) else {"full_attention"}
    if not kinds <= known:
        return f"it has layers of {', '.join(sorted(kinds - known))}"
    binding = windows_of(causal_lm, max_row_tokens)
    return f"its attention is limited to {binding[0]} tokens" if binding else ""


def use_tree_attention(causal_lm: Any) -> None:
    """Let the model read trees (`reading`); calls without one run as before."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(ATTENTION_NAME, tree_attention)
    AttentionMaskInterface.register(ATTENTION_NAME, tree_mask)
    # Only the text's part: towers keep their own attention.
    text_decoder(causal_lm).config._attn_implementation = ATTENTION_NAME


@contextmanager
def reading(tree: PrefixTree | None) -> Iterator[None]:
    """Let attention know of the tree whose nodes the model reads.

    Not as an argument: some architectures do not hand on those that they do not know.
    """
    token = _tree_now.set(tree)
    try:
        yield
    finally:
        _tree_now.reset(token)


def tree_being_read() -> PrefixTree | None:
    """The innermost `reading`'s."""
    return _tree_now.get()


def tree_mask(*args: object, local_size: int | None = None, **kwargs: object) -> Tensor | None:
    """The mask of sdpa, in the form that transformers calls; none while a tree is read."""
    from transformers.masking_utils import sdpa_mask

    tree = tree_being_read()
    if tree is None:
        return sdpa_mask(*args, local_size=local_size, **kwargs)
    refuse_longer(tree, local_size)
    return None


def refuse_longer(tree: PrefixTree, window: int | None) -> None:
    """Refuse rows that are longer than a window.

    Raises:
        LearnerError: attention without the window would be another.
    """
    longest = max(bucket.nodes.shape[1] for bucket in tree.buckets)
    if window and longest > window:
        raise LearnerError(
            f"A row of {longest} tokens is longer than the {window} that the model's attention "
            "reaches back, and merged prefixes have no window. Set learner.merge_prefixes=false."
        )


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention over a tree's rows, in the form that transformers calls.

    Args:
        query: [1, heads, U, D] over the tree's nodes; without a tree [b, heads, T, D].
        key, value: the same with their own number of heads.

    Returns:
        [1, U, heads, D] (or [b, T, heads, D]) and no attention weights.

    Raises:
        LearnerError: the model asks of attention what is left out here.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    prefix_tree = tree_being_read()
    if prefix_tree is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    refuse_longer(prefix_tree, kwargs.get("sliding_window"))
    for name in REFUSED_ARGUMENTS:
        if kwargs.get(name) is not None:
            raise LearnerError(
                f"The model's attention takes {name}, which merged prefixes leave out. "
                "Set learner.merge_prefixes=false."
            )
    tables = [one[0].transpose(0, 1).flatten(1) for one in (query, key, value)]  # [U, heads * D]
    widths = [one.shape[-1] for one in (query, key, value)]
    outputs = []
    for bucket in prefix_tree.buckets:
        new = bucket.nodes[:, bucket.first_query :]
        # An embedding's backward pass adds up what a node's rows send back, in float32.
        rows = [
            functional.embedding(nodes, table).unflatten(-1, (-1, width)).transpose(1, 2)
            for nodes, table, width in zip(
                (new, bucket.nodes, bucket.nodes), tables, widths, strict=True
            )
        ]  # [b, heads, queries or T, D] each
        output = lower_right_attention(*rows, **kwargs)  # [b, heads, queries, D]
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    whole = torch.cat(outputs)  # [places, heads, D]
    merged = functional.embedding(prefix_tree.found_at, whole.flatten(1))  # [U, heads * D]
    return merged.view(1, -1, *whole.shape[1:]), None


def lower_right_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: object,
) -> Tensor:
    """Causal attention whose last query sees all keys.

    Args:
        query: [b, heads, queries, D].
        key, value: [b, their own number of heads, T, D].

    Returns:
        [b, heads, queries, D].
    """
    from transformers.integrations.sdpa_attention import repeat_kv, use_gqa_in_sdpa

    num_shared = query.shape[1] // key.shape[1]  # queries of one key's head
    # Of the kernels for GPUs only those of 16-bit types read shared heads.
    is_native = use_gqa_in_sdpa(None, key, value) and (
        query.device.type == "cpu" or query.dtype.itemsize == 2
    )
    if not is_native:
        key, value = repeat_kv(key, num_shared), repeat_kv(value, num_shared)
    return functional.scaled_dot_product_attention(
        query,
        key,
        value,
        causal_lower_right(query.shape[2], key.shape[2]),
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=is_native and num_shared > 1,
    )
