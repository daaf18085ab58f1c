"""Checks a model's weights against its architecture, from config.json and the files' headers.

transformers loads meta tensors (name and shape, no memory) into a meta model. So its own rules
decide the mapping: renamed and fused tensors, tied weights, and what an architecture may lack or
ignore.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mgrpo.errors import ModelError
from mgrpo.models.policy_tokenizer import settings_file, text_part
from mgrpo.models.weight_files import TensorHeader, read_weights, some
from mgrpo.records.json_object import JsonObject

NUM_COMPARED_ROWS = 64  # of weights that should be tied: different ones differ in every row
FLOATS = ("F64", "F32", "F16", "BF16")
QUANTISED_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")


def refuse_broken_model(folder: Path) -> None:
    """Refuse a folder from which no policy can be loaded unchanged.

    Raises:
        ModelError: the message states the fault.
    """
    settings = settings_file(str(folder), "config.json")
    refuse_unusable(settings, str(folder))
    refuse_unfit(read_weights(folder), settings, str(folder))


def refuse_unusable(settings: Mapping[str, object], source: str) -> None:
    """Refuse a configuration without a trainable causal language model.

    Args:
        settings: config.json.
        source: the model's folder or hub name.

    Raises:
        ModelError: unknown, no causal language model, or quantised.
    """
    from transformers import CONFIG_MAPPING

    name = str(settings.get("model_type") or "")
    if name not in CONFIG_MAPPING:
        if not name:
            what = "has no model_type in its config.json"
        elif "auto_map" in settings:
            what = f"is a {name}, which needs its own code, and remote code is never run"
        else:
            what = (
                f"is of the model type {name!r}, which the installed transformers does not support"
            )
        near = difflib.get_close_matches(name, CONFIG_MAPPING, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ModelError(
            f"The model {source!r} {what}.{hint} Use a model that transformers supports."
        )
    if settings.get("is_encoder_decoder") or not classes_of(CONFIG_MAPPING[name]):
        raise ModelError(
            f"The model {source!r} is of the type {name!r}, which has no causal language model: it "
            "cannot sample completions. Use a decoder such as Qwen, Llama or Mistral."
        )
    how = quantisation(settings, Path(source))
    if how:
        raise ModelError(
            f"The weights of {source!r} are quantised ({how}), and training needs weights of 16 or "
            "32 bits. Use the original model."
        )


def quantisation(settings: Mapping[str, object], folder: Path) -> str:
    """The quantisation of a model's weights; "" if there is none."""
    for part in (settings, text_part(settings)):
        for key in ("quantization_config", "compression_config"):
            given = part.get(key)
            if given:
                return str(given.get("quant_method", key) if isinstance(given, dict) else key)
    return next((name for name in QUANTISED_FILES if (folder / name).is_file()), "")


def refuse_unfit(
    tensors: Mapping[str, TensorHeader], settings: Mapping[str, Any], source: str
) -> None:
    """Refuse weights that do not match the architecture.

    Raises:
        ModelError: quantised, missing, of another shape, or unexpected.
    """
    odd = {
        name: tensor.dtype
        for name, tensor in tensors.items()
        if tensor.dtype not in FLOATS and len(tensor.shape) > 1 and name.endswith("weight")
    }
    if odd:
        kinds = ", ".join(sorted(set(odd.values())))
        raise ModelError(
            f"{len(odd)} weights of {source!r} are of the type {kinds} ({some(list(odd))}): they "
            "are quantised, and training needs weights of 16 or 32 bits."
        )
    report, tied = loading_report(tensors, source)
    wrong = [
        f"{name} is {shape_text(found)}, expected {shape_text(wanted)}"
        for name, found, wanted in sorted(report["mismatched_keys"])
    ]
    problems = [
        listed("missing", "would be random", report["missing_keys"]),
        listed("of another shape", "than in config.json", wrong),
        listed("not in the architecture", "would be dropped", report["unexpected_keys"]),
    ]
    if any(problems):
        raise ModelError(
            f"The weights of {source!r} do not fit its config.json ({architecture(settings)}): "
            f"{'; '.join(filter(None, problems))}. {advice(report, settings)}"
        )
    refuse_two_for_one(tensors, tied, source)


def refuse_two_for_one(
    tensors: Mapping[str, TensorHeader], tied: Mapping[str, str], source: str
) -> None:
    """Refuse two different tensors that are tied by config.json.

    transformers would then keep both, and vLLM one.
    """
    for name, other in tied.items():
        if name in tensors and other in tensors:
            first, second = (
                first_rows(Path(source) / tensors[one].file, one) for one in (name, other)
            )
            if not first.float().equal(second.float()):
                raise ModelError(
                    f"The weights {name} and {other} of {source!r} differ, but its config.json "
                    "ties them. Set tie_word_embeddings to false in it."
                )


def first_rows(file: Path, name: str) -> Any:
    """[at most NUM_COMPARED_ROWS, ...] of a tensor."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return opened.get_slice(name)[:NUM_COMPARED_ROWS]


def loading_report(
    tensors: Mapping[str, TensorHeader], source: str
) -> tuple[JsonObject, dict[str, str]]:
    """The loading report of transformers: missing_keys, unexpected_keys and mismatched_keys (name,
    shape found, shape expected); and the tied weights."""
    import torch
    from transformers import AutoConfig
    from transformers.utils import logging

    state = {name: torch.empty(tensor.shape, device="meta") for name, tensor in tensors.items()}
    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        made = classes_of(type(config))[0]
        text_config = config.get_text_config()
        model, report = made.from_pretrained(
            None,
            config=text_config if made.config_class is type(text_config) else config,
            state_dict=state,
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # each architecture's own code, with arbitrary settings
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"No model can be made of config.json and the weights of {source!r}: {reason}"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()
    return dict(report), dict(model.all_tied_weights_keys)


def classes_of(kind: type) -> list[Any]:
    """The classes that load a configuration's model, a vision-language one first; empty if it
    cannot generate text."""
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )

    found: list[Any] = []
    for mapping in (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING):
        if kind in mapping:
            classes = mapping[kind]
            found += classes if isinstance(classes, tuple) else [classes]
    return found


def listed(what: str, why: str, names: Iterable[str]) -> str:
    """ "2 tensors are missing (would be random): a, b"; "" for none."""
    found = sorted(names)
    verb = "tensor is" if len(found) == 1 else "tensors are"
    return f"{len(found)} {verb} {what} ({why}): {some(found)}" if found else ""


def shape_text(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def architecture(settings: Mapping[str, object]) -> str:
    """The class named in config.json."""
    names = settings.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else "unknown architecture"


def advice(report: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Advice, as far as the tensor names show the cause."""
    missing = report["missing_keys"]
    if missing and all("head" in name or "embed_out" in name for name in missing):
        return (
            "If the output layer is tied to the embedding, set tie_word_embeddings to true in "
            "config.json; otherwise save the model again with its output layer."
        )
    return "Use config.json and weights of the same, completely saved model."
