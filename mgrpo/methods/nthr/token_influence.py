"""How much training on one token moves the likelihood of others, to first order.

A step along the gradient of token b's log-probability changes that of token a by about
<g_a, g_b> <h_a, h_b>, where h is the last hidden state from which a token is predicted and g is
its one-hot minus the distribution predicted: the gradient that reaches the output layer is their
outer product. Summed over many tokens a that is g_b' M h_b with M = sum over a of g_a h_a', so no
pair is ever looked at. From NTHR, https://arxiv.org/abs/2505.18830.
"""

from __future__ import annotations

from torch import Tensor


def gradient_sum(errors: Tensor, hidden: Tensor) -> Tensor:
    """[W, D] sum of g h' over tokens.

    Args:
        errors: [n, W] g of each token, on some of the vocabulary.
        hidden: [n, D] h.
    """
    return errors.T @ hidden


def influences(errors: Tensor, hidden: Tensor, others: Tensor) -> Tensor:
    """[n] g' M h of each token: above 0 where what is good for it is good for the others.

    Args:
        errors: [n, W]. hidden: [n, D].
        others: [W, D] the others' `gradient_sum`.
    """
    return ((errors @ others) * hidden).sum(dim=1)
