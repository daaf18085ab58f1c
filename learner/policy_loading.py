"""Loads the policy for training, and proves that what is computed faster is computed right."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from learner.logprobs import PolicyModel
from learner.prefix_tree import build_tree
from learner.tree_attention import use_tree_attention, why_not_mergeable
from mgrpo.errors import ModelError

logger = logging.getLogger(__name__)

NUM_PROOF_TOKENS = 8


def load_policy(
    model_dir: str,
    *,
    dtype: torch.dtype,
    gradient_checkpointing: bool = False,
    merge_prefixes: bool = False,
) -> PolicyModel:
    """Load a causal language model from a local folder, from safetensors only.

    Dropout is off in either mode: importance ratios compare the same network with itself.
    The model stays in evaluation mode except where gradient checkpointing, which transformers
    only applies while training, needs the other.

    Raises:
        ModelError: the folder cannot be loaded, or the output layer is of an unknown kind.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # one bar per rank and file says nothing

    if not Path(model_dir).is_dir():
        raise ModelError(f"The policy's folder {model_dir} does not exist.")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            model_dir,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The policy in {model_dir} could not be loaded: {error} Weights must be safetensors "
            "and the architecture one that transformers knows."
        ) from error
    disable_dropout(model)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    policy = PolicyModel(model)
    if merge_prefixes:
        merge_where_possible(policy)
    return policy.train(gradient_checkpointing)


def merge_where_possible(policy: PolicyModel) -> None:
    """Let the policy read prefix trees, or say why rows will be padded instead."""
    obstacle = why_not_mergeable(policy.causal_lm)
    if obstacle:
        logger.warning(
            "Prefixes are not merged for %s: %s. Rows are padded instead.",
            type(policy.causal_lm).__name__,
            obstacle,
        )
        return
    use_tree_attention(policy.causal_lm)
    policy.merges_prefixes = True


def disable_dropout(model: Any) -> None:
    """Set every dropout rate to 0, in modules and in those that attention layers keep."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


@torch.no_grad()
def check_output_layer(policy: PolicyModel, call: Any, *, device: torch.device | str) -> None:
    """Refuse a model whose own logits differ from its output layer's.

    Some architectures scale or cap their logits after the output layer. Training them without
    that would silently optimise another distribution than the engines sample.

    Args:
        policy: the model itself, whose naive logits are the truth.
        call: what training calls with PolicyModel.forward's arguments, e.g. an engine.

    Raises:
        ModelError: the two differ by more than rounding.
    """
    tokens = torch.tensor(proof_tokens(policy), device=device)
    positions = torch.arange(NUM_PROOF_TOKENS, device=device)
    chunked, _ = call(tokens[None, :-1], positions, tokens[1:], 1.0, NUM_PROOF_TOKENS)
    difference = float((chunked - naive_logprobs(policy, tokens)).abs().mean())
    if not difference <= proof_bound(policy):
        raise ModelError(
            f"{type(policy.causal_lm).__name__} changes its logits after the output layer: its "
            f"log-probabilities differ by {difference:.3g} from the layer's own. This learner "
            "supports models whose logits are the output layer's."
        )


@torch.no_grad()
def check_prefix_tree(policy: PolicyModel, call: Any, *, device: torch.device | str) -> None:
    """Refuse a model that reads a prefix tree otherwise than its rows one by one.

    Args:
        policy, call: as for `check_output_layer`.

    Raises:
        ModelError: the two differ by more than rounding.
    """
    if not policy.merges_prefixes:
        return
    first = proof_tokens(policy)
    half = NUM_PROOF_TOKENS // 2
    second = first[:half] + first[: half - 1 : -1]
    tree, paths = build_tree([first[:-1], second[:-1]])
    tree = tree.to(device)
    difference = 0.0
    for row, path in zip((first, second), paths, strict=True):
        targets = torch.tensor(row[1:], device=device)
        places = torch.tensor(path, device=device)
        merged, _ = call(tree.token_ids[None], places, targets, 1.0, NUM_PROOF_TOKENS, tree)
        alone = naive_logprobs(policy, torch.tensor(row, device=device))
        difference = max(difference, float((merged - alone).abs().mean()))
    if not difference <= proof_bound(policy):
        raise ModelError(
            f"{type(policy.causal_lm).__name__} gives other log-probabilities when rows share "
            f"their prefixes: they differ by {difference:.3g}. Set learner.merge_prefixes=false."
        )


def proof_tokens(policy: PolicyModel) -> list[int]:
    """NUM_PROOF_TOKENS + 1 tokens from all over the vocabulary."""
    vocab_size = policy.causal_lm.get_input_embeddings().num_embeddings
    step = max(vocab_size // (NUM_PROOF_TOKENS + 1), 1)
    return [index * step % vocab_size for index in range(NUM_PROOF_TOKENS + 1)]


def naive_logprobs(policy: PolicyModel, tokens: Tensor) -> Tensor:
    """[T - 1] log-probabilities of [T] tokens from the model's own logits."""
    logits: Tensor = policy.causal_lm(input_ids=tokens[None, :-1], use_cache=False).logits[0]
    return logits.float().log_softmax(dim=-1).gather(1, tokens[1:, None])[:, 0]


def proof_bound(policy: PolicyModel) -> float:
    """Nats, of the mean over the proof's tokens. In 16 bits single logits are rounded by up to a
    quarter; what is wrong is off by nats."""
    return 1e-3 if policy.causal_lm.dtype == torch.float32 else 0.25
