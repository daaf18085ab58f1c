"""Loads the policy for training, and proves that the chunked output layer computes its logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from learner.logprobs import PolicyModel
from mgrpo.errors import ModelError

NUM_PROOF_TOKENS = 8


def load_policy(
    model_dir: str, *, dtype: torch.dtype, gradient_checkpointing: bool = False
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
    return policy.train(gradient_checkpointing)


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
    vocab_size = policy.causal_lm.get_input_embeddings().num_embeddings
    step = max(vocab_size // (NUM_PROOF_TOKENS + 1), 1)
    tokens = (torch.arange(NUM_PROOF_TOKENS + 1, device=device) * step) % vocab_size
    positions = torch.arange(NUM_PROOF_TOKENS, device=device)
    chunked, _ = call(tokens[None, :-1], positions, tokens[1:], 1.0, NUM_PROOF_TOKENS)
    logits: Tensor = policy.causal_lm(input_ids=tokens[None, :-1], use_cache=False).logits[0]
    naive = logits.float().log_softmax(dim=-1).gather(1, tokens[1:, None])[:, 0]
    difference = float((chunked - naive).abs().max())
    bound = 1e-3 if logits.dtype == torch.float32 else 0.1
    if not difference <= bound:
        raise ModelError(
            f"{type(policy.causal_lm).__name__} changes its logits after the output layer: its "
            f"log-probabilities differ by {difference:.3g} from the layer's own. This learner "
            "supports models whose logits are the output layer's."
        )
