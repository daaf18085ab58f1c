"""Log-probabilities of chosen tokens without ever holding the [tokens, vocabulary] matrix.

The output layer is applied to `chunk_tokens` positions at a time, on a CPU to fewer where the
vocabulary is large, and only where a token trains: prompts and padding never reach it. The backward
pass computes each chunk's logits again and uses the closed form of the gradient, so memory stays at
one chunk in both passes. Logits take the model's type, the softmax is float32.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from learner.logit_transform import UNCHANGED, LogitTransform, transform_of
from learner.prefix_tree import PrefixTree
from learner.token_states import LogitRoom, Visit, chunk_logits, visit_chunks
from learner.tree_attention import reading, text_decoder
from mgrpo.errors import ModelError

CHUNK_BYTES = 16 * 2**20
"""Of float32 logits, on a CPU."""
LEAST_CHUNK_TOKENS = 128
"""With fewer, reading the layer's weights takes longer than multiplying by them."""


class LogprobHead(nn.Module):
    """A model's output layer that can also answer with log-probabilities.

    It takes the place of the `nn.Linear` and shares its parameters under the same names. It
    must be a module that is *called* with the hidden states: that is how ZeRO-3 knows when to
    gather the weight, once per pass however many chunks there are.

    Args:
        transform: what the model makes of the layer's logits.
    """

    def __init__(self, linear: nn.Linear, transform: LogitTransform) -> None:
        super().__init__()
        self.transform = transform
        self.weight = linear.weight  # [V, D]
        self.bias = linear.bias  # [V] or None

    def forward(
        self,
        hidden: Tensor,
        target_ids: Tensor | None = None,
        temperature: float = 1.0,
        chunk_tokens: int = 1024,
        visit: Visit | None = None,
        with_entropies: bool = True,
    ) -> object:
        """The layer's own logits [..., V] without `target_ids`; with them ([n]) see
        `token_logprobs`.

        With `visit` nothing is worked out: the visitor is shown the tokens, and two empty
        tensors are returned.
        """
        hidden = hidden.to(self.weight.dtype)  # Mamba's states are float32
        if target_ids is None:
            return functional.linear(hidden, self.weight, self.bias)
        chunk_tokens = int(min(chunk_tokens, most_chunk_tokens(self.weight)))
        if visit is not None:
            visit_chunks(
                visit,
                hidden,
                self.weight,
                self.bias,
                target_ids,
                temperature=temperature,
                chunk_tokens=chunk_tokens,
                transform=self.transform,
            )
            return hidden.new_zeros(0), hidden.new_zeros(0)
        return token_logprobs(
            hidden,
            self.weight,
            self.bias,
            target_ids,
            temperature=temperature,
            chunk_tokens=chunk_tokens,
            transform=self.transform,
            with_entropy=with_entropies,
        )


class PolicyModel(nn.Module):
    """A Hugging Face causal language model that returns log-probabilities of given tokens."""

    def __init__(self, causal_lm: Any) -> None:
        super().__init__()
        linear = causal_lm.get_output_embeddings()
        if type(linear) is not nn.Linear:
            raise ModelError(
                f"{type(causal_lm).__name__} has a {type(linear).__name__} as its output layer; "
                "the learner can train models whose output layer is a plain nn.Linear."
            )
        text_config = causal_lm.config.get_text_config(decoder=True)
        causal_lm.set_output_embeddings(LogprobHead(linear, transform_of(text_config)))
        self.causal_lm = causal_lm
        self.merges_prefixes = False  # set by policy_loading

    @property
    def decoder(self) -> Any:
        """The model below its output layer, as far as it reads text."""
        return text_decoder(self.causal_lm)

    @property
    def hidden_size(self) -> int:
        """D of the states that the output layer reads."""
        weight = self.causal_lm.get_output_embeddings().weight
        return int(getattr(weight, "ds_shape", weight.shape)[1])  # ZeRO-3 keeps a shard of it

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        target_ids: Tensor,
        temperature: float,
        chunk_tokens: int,
        prefix_tree: PrefixTree | None = None,
        visit: Visit | None = None,
        with_entropies: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy at the chosen positions.

        Args:
            input_ids: [b, T] padded on the right, or [1, U] the nodes of `prefix_tree`.
            positions: [n] indices into the flattened input; the token after each one is what
                is predicted.
            target_ids: [n] those tokens.
            temperature: logits are divided by it.
            prefix_tree: only for a model that `merges_prefixes`.
            visit: shown the tokens instead, chunk by chunk, without gradient.

        Returns:
            [n] float32 log-probabilities and [n] float32 entropies, both with gradient; empty
            entropies where they are not wanted, and two empty ones for a visitor.
        """
        tree: dict[str, object] = {}
        if prefix_tree is not None:
            tree = {"position_ids": prefix_tree.depths[None, :]}
        with reading(prefix_tree):
            hidden = self.decoder(input_ids=input_ids, use_cache=False, **tree).last_hidden_state
        chosen = hidden.flatten(0, 1).index_select(0, positions)  # [n, D]
        return self.causal_lm.get_output_embeddings()(
            chosen, target_ids, temperature, chunk_tokens, visit, with_entropies
        )


def most_chunk_tokens(weight: Tensor) -> float:
    """Of how many tokens logits are held at once, so that they stay in a CPU's caches.

    On a GPU there is no such limit.
    """
    if weight.device.type != "cpu":
        return math.inf
    return max(LEAST_CHUNK_TOKENS, CHUNK_BYTES // (4 * len(weight)))


def token_logprobs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target_ids: Tensor,
    *,
    temperature: float = 1.0,
    chunk_tokens: int = 1024,
    transform: LogitTransform = UNCHANGED,
    with_entropy: bool = True,
) -> tuple[Tensor, Tensor]:
    """log softmax(f(hidden @ weight.T + bias) / temperature) at `target_ids`.

    Args:
        hidden: [n, D]. weight: [V, D]. bias: [V] or None. target_ids: [n].
        transform: f, of each logit.

    Returns:
        [n] float32 log-probabilities, and the [n] float32 entropies of the same
        distributions, in nats; [0] without them. Both carry a gradient.
    """
    return _TokenLogprobs.apply(
        hidden, weight, bias, target_ids, temperature, chunk_tokens, transform, with_entropy
    )


class _TokenLogprobs(torch.autograd.Function):
    """d logprob / d logits = (onehot(target) - p) / temperature and
    d entropy / d logits = -p (log p + entropy) / temperature, with p the softmax and the logits
    as the model changes them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target_ids: Tensor,
        temperature: float,
        chunk_tokens: int,
        transform: LogitTransform,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        room = LogitRoom(min(chunk_tokens, len(hidden)), weight)
        other_room = torch.empty_like(room.wide) if with_entropy else room.wide
        logprobs = room.wide.new_empty(len(hidden))
        log_normalisers = torch.empty_like(logprobs)
        entropy = torch.empty_like(logprobs) if with_entropy else logprobs.new_empty(0)
        for start in range(0, len(hidden), chunk_tokens):
            here = slice(start, start + chunk_tokens)
            logits = chunk_logits(hidden[here], weight, bias, temperature, transform, room)
            chosen = logits.gather(1, target_ids[here, None])[:, 0]
            largest = logits.amax(dim=1, keepdim=True)
            exponentials = torch.sub(logits, largest, out=other_room[: len(logits)]).exp_()
            total = exponentials.sum(dim=1)
            log_normaliser = total.log() + largest[:, 0]
            logprobs[here] = chosen - log_normaliser
            log_normalisers[here] = log_normaliser
            if with_entropy:
                mean_logit = torch.linalg.vecdot(exponentials, logits) / total
                entropy[here] = log_normaliser - mean_logit
        ctx.save_for_backward(hidden, weight, bias, target_ids, log_normalisers, entropy)
        ctx.temperature, ctx.chunk_tokens, ctx.transform = temperature, chunk_tokens, transform
        ctx.set_materialize_grads(False)  # an unused entropy must cost nothing
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_logprobs, grad_entropy = grads  # [n] each, or None where it was not used
        hidden, weight, bias, target_ids, log_normalisers, entropy = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        # Summed in float32 whatever the model's type: chunks must not cost precision.
        wide = torch.promote_types(weight.dtype, torch.float32)
        needs_weight = ctx.needs_input_grad[1]
        grad_weight = torch.zeros(weight.shape, dtype=wide, device=weight.device)
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=wide)
        room = LogitRoom(min(ctx.chunk_tokens, len(hidden)), weight)
        other_room = room.wide if grad_entropy is None else torch.empty_like(room.wide)
        for start in range(0, len(hidden), ctx.chunk_tokens):
            here = slice(start, start + ctx.chunk_tokens)
            log_probs = chunk_logits(
                hidden[here], weight, bias, ctx.temperature, ctx.transform, room
            )
            slopes = ctx.transform.slopes(log_probs, ctx.temperature)
            log_probs.sub_(log_normalisers[here, None])
            factors = torch.zeros_like(log_normalisers[here, None])
            if grad_logprobs is not None:
                factors = grad_logprobs[here, None]
            if grad_entropy is not None:
                entropy_factors = other_room[: len(log_probs)]
                torch.add(log_probs, entropy[here, None], out=entropy_factors)
                factors = entropy_factors.mul_(grad_entropy[here, None]).add_(factors)
            grad = log_probs.exp_().mul_(-factors)
            if grad_logprobs is not None:
                grad.scatter_add_(1, target_ids[here, None], grad_logprobs[here, None])
            grad.mul_(slopes)
            grad = grad.to(weight.dtype)
            torch.mm(grad, weight, out=grad_hidden[here])
            if needs_weight and wide == weight.dtype:
                grad_weight.addmm_(grad.t(), hidden[here])
            elif needs_weight:
                grad_weight += grad.t() @ hidden[here]
            if grad_bias is not None:
                grad_bias += grad.sum(dim=0, dtype=wide)
        return (
            grad_hidden,
            grad_weight.to(weight.dtype) if needs_weight else None,
            None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
            None,
            None,
            None,
            None,
            None,
        )
