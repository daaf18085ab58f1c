"""What the output layer sees of a few tokens: hidden states, and distributions if asked for.

A micro-batch's tokens pass by some at a time (`logprob_chunk_tokens`), so whoever looks at them
holds one chunk of [tokens, vocabulary], never a batch of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from learner.logit_transform import UNCHANGED, LogitTransform


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStates:
    """n neighbouring tokens of what is read. V: vocabulary, D: hidden size.

    Only good during the visit: under ZeRO-3 the output layer's weights are whole only then.
    """

    places: Tensor  # [n] int64, which tokens these are of all that are read, end to end
    hidden: Tensor  # [n, D] the last layer's state, normalised, at the token that predicts each
    target_ids: Tensor  # [n] int64, the tokens themselves
    temperature: float = 1.0
    weight: Tensor = field(repr=False)  # [V, D] of the output layer
    bias: Tensor | None = field(default=None, repr=False)  # [V]
    transform: LogitTransform = UNCHANGED

    def probabilities(self) -> Tensor:
        """[n, V] float32 (float64 of a float64 model), at the sampling temperature."""
        logits = chunk_logits(self.hidden, self.weight, self.bias, self.temperature, self.transform)
        return logits.softmax(dim=1)

    def errors(self, vocab_ids: Tensor) -> Tensor:
        """One-hot of the token minus the distribution it was drawn from.

        Args:
            vocab_ids: [W] int64, distinct ids; other columns are left out, and nothing is
                normalised again.

        Returns:
            [n, W] like `probabilities`.
        """
        probabilities = self.probabilities()[:, vocab_ids]
        return (self.target_ids[:, None] == vocab_ids).to(probabilities.dtype) - probabilities

    def at(self, chosen: Tensor) -> TokenStates:
        """Some of the tokens, by [k] indices or an [n] bool mask."""
        return replace(
            self,
            places=self.places[chosen],
            hidden=self.hidden[chosen],
            target_ids=self.target_ids[chosen],
        )


Visit = Callable[[TokenStates], None]


def chunk_logits(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    temperature: float,
    transform: LogitTransform,
    room: LogitRoom | None = None,
) -> Tensor:
    """[n, V] float32 (float64 for float64 inputs) logits of one chunk.

    Args:
        room: where they are put, over what stood there; None: into memory of their own.
    """
    if room is None:
        room = LogitRoom(len(hidden), weight)
    logits = room.raw[: len(hidden)]
    if bias is None:
        torch.mm(hidden, weight.t(), out=logits)
    else:
        torch.addmm(bias, hidden, weight.t(), out=logits)
    if room.wide is not room.raw:
        logits = room.wide[: len(hidden)].copy_(logits)
    logits = transform.apply_(logits)
    return logits if temperature == 1.0 else logits.div_(temperature)


class LogitRoom:
    """Memory for the logits of one chunk after the other: new pages for each would take as long as
    what is worked out in them."""

    def __init__(self, num_tokens: int, weight: Tensor) -> None:
        """
        Args:
            num_tokens: of the longest chunk.
            weight: [V, D] of the output layer.
        """
        self.raw = weight.new_empty(num_tokens, len(weight))
        dtype = torch.promote_types(weight.dtype, torch.float32)
        self.wide = self.raw if dtype == weight.dtype else torch.empty_like(self.raw, dtype=dtype)


def visit_chunks(
    visit: Visit,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target_ids: Tensor,
    *,
    temperature: float,
    chunk_tokens: int,
    transform: LogitTransform,
) -> None:
    """Show [n, D] states to a visitor, `chunk_tokens` at a time; places count from 0."""
    places = torch.arange(len(hidden), device=hidden.device)
    for here in places.split(chunk_tokens):
        visit(
            TokenStates(
                places=here,
                hidden=hidden[here],
                target_ids=target_ids[here],
                temperature=temperature,
                weight=weight,
                bias=bias,
                transform=transform,
            )
        )
