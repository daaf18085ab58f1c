"""A model's shape, from its config.json: the basis of memory and time estimates.

For decoders with gated MLPs and grouped-query attention (Llama, Qwen, Mistral and their like);
others are close. Needs neither torch nor transformers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mgrpo.errors import ConfigError, ConfigFault, HubUnreachable, ModelError
from mgrpo.models.hub import is_hub_reachable, use_cache_only
from mgrpo.records.json_object import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The entries of a model's config.json that are used here."""

    source: str  # where it is from, for people
    num_parameters: int
    hidden: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate: int  # of all experts that one token visits
    vocabulary: int
    max_context: int | None = None

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token in all layers, 16 bit."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * 2

    @property
    def output_parameters(self) -> int:
        """Entries of the output layer's matrix."""
        return self.vocabulary * self.hidden

    @property
    def layer_parameters(self) -> int:
        """Of one decoder layer, on average."""
        return max(0, self.num_parameters - 2 * self.output_parameters) // self.num_layers


QWEN25 = {  # published shapes: hidden, layers, heads, kv heads, intermediate, vocabulary, tied
    "0.5B": (896, 24, 14, 2, 4864, 151_936, True),
    "1.5B": (1536, 28, 12, 2, 8960, 151_936, True),
    "3B": (2048, 36, 16, 2, 11_008, 151_936, True),
    "7B": (3584, 28, 28, 4, 18_944, 152_064, False),
    "14B": (5120, 48, 40, 8, 13_824, 152_064, False),
    "32B": (5120, 64, 40, 8, 27_648, 152_064, False),
    "72B": (8192, 80, 64, 8, 29_568, 152_064, False),
}
"""Qwen2.5 (arXiv 2412.15115): stand-ins for a model of which only the size is known."""


def shape_of(settings: JsonObject, source: str, num_parameters: int | None) -> ModelShape:
    """Read a config.json.

    Args:
        num_parameters: as counted in the weights; None: computed from the shape.

    Raises:
        ModelError: a required number is missing.
    """
    text = {**settings, **(settings.get("text_config") or {})}
    try:
        hidden, layers = int(text["hidden_size"]), int(text["num_hidden_layers"])
        heads, vocabulary = int(text["num_attention_heads"]), int(text["vocab_size"])
        dense = int(text["intermediate_size"])
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"The config.json of {source} has no {error}, so its memory cannot be estimated. Give "
            "its size: --parameters 7B."
        ) from error
    kv_heads = int(text.get("num_key_value_heads") or heads)
    head_dim = int(text.get("head_dim") or hidden // heads)
    experts = int(text.get("num_experts") or text.get("num_local_experts") or 0)
    expert = int(text.get("moe_intermediate_size") or dense) if experts else 0
    attention = 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim
    if text.get("model_type") == "qwen2":
        attention += (heads + 2 * kv_heads) * head_dim  # biases of q, k and v
    mlp = experts * (3 * expert + 1) * hidden if experts else 3 * hidden * dense
    matrices = 1 if text.get("tie_word_embeddings") else 2
    worked_out = matrices * vocabulary * hidden + layers * (attention + mlp + 2 * hidden) + hidden
    context = text.get("max_position_embeddings")
    return ModelShape(
        source=source,
        num_parameters=num_parameters or worked_out,
        hidden=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=expert * int(text.get("num_experts_per_tok") or 1) if experts else dense,
        vocabulary=vocabulary,
        max_context=int(context) if context else None,
    )


def shape_like(parameters: int) -> ModelShape:
    """A model of which only the size is known, shaped like the nearest Qwen2.5."""
    shapes = {name: qwen25_shape(name) for name in QWEN25}
    name = min(shapes, key=lambda name: abs(shapes[name].num_parameters / parameters - 1))
    like = shapes[name]
    return ModelShape(
        source=f"{parameters / 1e9:g}B parameters, shaped like Qwen2.5-{name}",
        num_parameters=parameters,
        hidden=like.hidden,
        num_layers=like.num_layers,
        num_heads=like.num_heads,
        num_kv_heads=like.num_kv_heads,
        head_dim=like.head_dim,
        intermediate=like.intermediate,
        vocabulary=like.vocabulary,
    )


def qwen25_settings(name: str) -> JsonObject:
    """What the config.json of a Qwen2.5 says of its shape."""
    hidden, layers, heads, kv_heads, intermediate, vocabulary, is_tied = QWEN25[name]
    return {
        "model_type": "qwen2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
        "vocab_size": vocabulary,
        "tie_word_embeddings": is_tied,
    }


def qwen25_shape(name: str) -> ModelShape:
    return shape_of(qwen25_settings(name), f"Qwen2.5-{name}", None)


def parse_parameters(text: str) -> int:
    """ "7B", "0.5b", "500M" or a plain number of parameters.

    Raises:
        ConfigError: it is none of these.
    """
    units = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
    unit = units.get(text[-1:].upper())
    try:
        number = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        number = 0.0
    if not 1 <= number < 1e15:
        fault = ConfigFault("--parameters", text, "is not a size such as 7B or 500M.")
        raise ConfigError([fault], source="the command")
    return int(number)


def find_shape(path: str, revision: str | None = None) -> ModelShape:
    """The shape of a recipe's model: a prepared model, a folder, or a hub name with its revision.

    Raises:
        ModelError: there is no such model, or its config.json is not usable.
        HubUnreachable: its hub does not answer, and it is not in the cache.
    """
    from mgrpo.models.catalog import resolve_model
    from mgrpo.models.weight_files import count_parameters, read_weights

    source = resolve_model(path)
    folder = Path(source)
    is_local = folder.is_dir()
    file = folder / "config.json" if is_local else hub_config(source, revision)
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}.") from error
    has_weights = is_local and any(folder.glob("*.safetensors"))
    return shape_of(settings, path, count_parameters(read_weights(folder)) if has_weights else None)


def hub_config(name: str, revision: str | None) -> Path:
    """A hub model's config.json, from the cache or the hub."""
    if not is_hub_reachable():
        use_cache_only()  # otherwise it is retried for 20 s and more
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "config.json", revision=revision))
    except (OSError, ValueError) as error:
        if not is_hub_reachable():
            raise HubUnreachable(f"The model {name}", "model.path") from error
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"The model {name!r} (model.path) cannot be used: {reason}.") from error
