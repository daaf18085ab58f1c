"""Loads the policy for training: completely, its text part trainable, without random parts.

The loaded model is verified later, by `policy_proofs`, in its training configuration.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from learner.export import names_in, weight_files
from learner.logprobs import PolicyModel
from learner.tree_attention import (
    reading,
    tree_being_read,
    use_tree_attention,
    why_not_mergeable,
)
from mgrpo.errors import ModelError

logger = logging.getLogger(__name__)

LOADING = threading.Lock()
"""transformers takes `tie_weights` from the class of all models while it loads one. Of two threads
that load at once, the second would put the empty one back, for the rest of the process."""
NUM_NAMES_SHOWN = 5
IGNORED_WEIGHTS = (r"rotary_emb\.inv_freq", r"(^|\.)position_ids$")
"""Of old checkpoints; worked out by today's models."""


def load_policy(
    model_dir: str,
    *,
    dtype: torch.dtype,
    gradient_checkpointing: bool = False,
    merge_prefixes: bool = False,
    max_row_tokens: int | None = None,
) -> PolicyModel:
    """Load a causal language model from a local folder, from safetensors only.

    Of a model with towers for images or sound all is loaded, and the text's part can train. The
    model stays in evaluation mode, so that nothing in it is random: importance ratios compare the
    same network with itself.

    Args:
        merge_prefixes: let it read prefix trees where it can.
        max_row_tokens: longest row there can be; None: any that the model's context holds.

    Raises:
        ModelError: the folder cannot be loaded as it is, or is of a kind that cannot be trained.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # one bar per rank and file says nothing

    if not Path(model_dir).is_dir():
        raise ModelError(f"The policy's folder {model_dir} does not exist.")
    try:
        policy = PolicyModel(load_causal_lm(model_dir, dtype))
        train_text_only(policy)
        policy.eval()
        if gradient_checkpointing:
            checkpoint_in_evaluation(policy.causal_lm)
        if merge_prefixes:
            merge_where_possible(policy, max_row_tokens)
    except ModelError:
        raise
    except Exception as error:  # transformers raises whatever an architecture's code does
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise ModelError(
            f"The policy in {model_dir} could not be loaded: {reason} Weights must be complete "
            "safetensors files, and transformers must support the architecture."
        ) from error
    return policy


def load_causal_lm(model_dir: str, dtype: torch.dtype) -> Any:
    """The transformers model, every weight of it read from the folder.

    Raises:
        ModelError: it has an encoder, is quantised, or other weights than its files.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model_dir, trust_remote_code=False, local_files_only=True)
    refuse_untrainable(model_dir, config)
    with LOADING:
        model, report = auto_class(config).from_pretrained(
            model_dir,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report, by name
            **attention_argument(config),
        )
    # Under ZeRO-3 transformers also remembers conversions that no weight of this checkpoint needed,
    # and says nothing of weights that it does not know.
    used = [one for one in getattr(model, "_weight_conversions", None) or [] if one.was_used()]
    model._weight_conversions = used
    unknown = set(report["unexpected_keys"]) | unknown_weights(model, Path(model_dir))
    refuse_other_weights(model_dir, {**report, "unexpected_keys": unknown})
    return model


def unknown_weights(model: Any, model_dir: Path) -> set[str]:
    """Names in the files that become no weight of the model, nor one that it ignores."""
    from transformers.core_model_loading import WeightConverter, rename_source_key

    conversions = model._weight_conversions
    converters = [one for one in conversions if isinstance(one, WeightConverter)]
    renamings = [one for one in conversions if not isinstance(one, WeightConverter)]
    weights = model.state_dict()
    ignored = [*(model._keys_to_ignore_on_load_unexpected or ()), *IGNORED_WEIGHTS]
    found = set()
    for name in (name for file in weight_files(model_dir) for name in names_in(file)):
        renamed, _ = rename_source_key(
            name,
            renamings,
            converters,
            base_model_prefix=model.base_model_prefix,
            meta_state_dict=weights,
        )
        if renamed not in weights and not any(re.search(one, name) for one in ignored):
            found.add(name)
    return found


def auto_class(config: Any) -> Any:
    """Which of transformers' factories loads all of a checkpoint, towers included."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    is_composite = config.get_text_config(decoder=True) is not config
    if is_composite and type(config) in AutoModelForImageTextToText._model_mapping:
        return AutoModelForImageTextToText
    return AutoModelForCausalLM


def attention_argument(config: Any) -> dict[str, str]:
    """transformers' fast attention leaves soft caps out; its plain one has them (Gemma 2)."""
    text_config = config.get_text_config(decoder=True)
    is_capped = getattr(text_config, "attn_logit_softcapping", None) is not None
    return {"attn_implementation": "eager"} if is_capped else {}


def refuse_untrainable(model_dir: str, config: Any) -> None:
    """Refuse kinds of models that can be loaded but not trained.

    Raises:
        ModelError: which.
    """
    quantization = getattr(config, "quantization_config", None)
    if quantization is not None:
        method = getattr(quantization, "quant_method", None) or dict(quantization).get(
            "quant_method", "an unknown method"
        )
        raise ModelError(
            f"The policy in {model_dir} is quantised ({method}), and quantised weights cannot be "
            "trained. Use the unquantised checkpoint, or save a dequantised one."
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"The policy in {model_dir} ({config.model_type}) has an encoder. The learner trains "
            "models that only decode."
        )


def refuse_other_weights(model_dir: str, report: dict[str, Any]) -> None:
    """Refuse a checkpoint that does not hold exactly the model's weights.

    transformers fills in what is missing at random and leaves out what it does not know. What an
    architecture itself declares to be ignored does not count.

    Raises:
        ModelError: names of the weights.
    """
    damage = [
        ("has no weights for", report["missing_keys"]),
        ("holds weights that its architecture does not have", report["unexpected_keys"]),
        ("holds weights of other shapes than in config.json", report["mismatched_keys"]),
    ]
    for what, names in damage:
        if names:
            raise ModelError(
                f"The checkpoint in {model_dir} {what}: {shown(names)}. Check that config.json "
                "belongs to these weights (for instance tie_word_embeddings) and that all files "
                "are present."
            )
    if report["error_msgs"]:
        raise ModelError(f"The checkpoint in {model_dir}: {' '.join(report['error_msgs'])[:500]}")


def shown(names: Collection[object]) -> str:
    """The first few names, and how many more there are."""
    first = sorted(str(name[0] if isinstance(name, tuple) else name) for name in names)
    more = len(first) - NUM_NAMES_SHOWN
    return ", ".join(first[:NUM_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def train_text_only(policy: PolicyModel) -> None:
    """Freeze whatever reads no text: images' and sounds' towers and their projectors.

    They are kept, broadcast and saved as they are.
    """
    causal_lm = policy.causal_lm
    parts = (policy.decoder, causal_lm.get_output_embeddings(), causal_lm.get_input_embeddings())
    text = {id(parameter) for part in parts for parameter in part.parameters()}
    frozen = [one for one in causal_lm.parameters() if id(one) not in text]
    for parameter in frozen:
        parameter.requires_grad_(False)
    if frozen:
        logger.info(
            "%s: %d weights outside the text's part stay as they are.",
            type(causal_lm).__name__,
            len(frozen),
        )


def checkpoint_in_evaluation(causal_lm: Any) -> None:
    """Gradient checkpointing while the model stays in evaluation mode.

    transformers only checkpoints a layer that is in training mode, where dropout and noise are
    on. So only the layers that ask for the mode are in it, and leave it while they compute.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    asking = [one for one in causal_lm.modules() if getattr(one, "gradient_checkpointing", False)]
    layers = [one for one in asking if isinstance(one, GradientCheckpointingLayer)]
    for module in layers or asking:  # in older architectures the whole decoder asks
        module.training = True
        module._gradient_checkpointing_func = checkpoint_layer


def checkpoint_layer(call: Any, *inputs: object) -> Any:
    """What transformers' layers call for `torch.utils.checkpoint`.

    Args:
        call: a bound method of the layer, or `functools.partial` of one.
    """
    layer, tree = getattr(call, "func", call).__self__, tree_being_read()

    def in_evaluation(*inputs: object) -> Any:
        was_training = layer.training
        layer.training = False
        try:
            with reading(tree):  # also when it is computed again, in the backward pass
                return call(*inputs)
        finally:
            layer.training = was_training

    return checkpoint(in_evaluation, *inputs, use_reentrant=False)


def merge_where_possible(policy: PolicyModel, max_row_tokens: int | None = None) -> None:
    """Let the policy read prefix trees, or say why rows will be padded instead."""
    obstacle = why_not_mergeable(policy.causal_lm, max_row_tokens)
    if obstacle:
        logger.warning(
            "Prefixes are not merged for %s: %s. Rows are padded instead.",
            type(policy.causal_lm).__name__,
            obstacle,
        )
        return
    use_tree_attention(policy.causal_lm)
    policy.merges_prefixes = True


def in_training(module: nn.Module) -> list[nn.Module]:
    """The modules that are in training mode."""
    return [one for one in module.modules() if one.training]
