"""Checks that the model is complete, and that weights, tokenizer and prompts suit the recipe."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgrpo.check.prompts import prompt_lines
from mgrpo.config import EnginesConfig, RunConfig, StorageConfig
from mgrpo.data.problems import LoadedData
from mgrpo.errors import HubUnreachable, MgrpoError, ModelError
from mgrpo.findings import CheckLine
from mgrpo.models.hub import is_hub_reachable, use_cache_only
from mgrpo.models.policy_tokenizer import load_builder, settings_file, text_part
from mgrpo.models.weight_check import architecture, refuse_unfit, refuse_unusable
from mgrpo.models.weight_files import (
    INDEX,
    SINGLE,
    count_parameters,
    read_index,
    read_weights,
    some,
)
from mgrpo.records.json_object import JsonObject

CONTEXT = "max_position_embeddings"
STRETCHED = ("yarn", "linear", "dynamic", "longrope", "su", "mrope", "llama3")  # types of RoPE
MODALITIES = ("image", "audio", "video", "vision")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """Facts about a model that are known without loading it."""

    source: str  # local folder or hub name
    settings: JsonObject  # config.json
    weights: Path | None  # the folder with its weights, where they are on this machine


def find_model(path: str, storage: StorageConfig | None = None) -> FoundModel:
    """Resolve a recipe's model.path and read its config.json.

    Raises:
        ModelError: there is no such model, or it cannot be used.
        HubUnreachable: its hub does not answer, and it is not in the cache.
    """
    from mgrpo.models.catalog import resolve_model

    source = resolve_model(path)
    if "://" in source:
        from mgrpo.models.node_model import driver_model

        source = driver_model(path, storage or StorageConfig()).driver_dir
    is_local = Path(source).is_dir()
    if not is_local and not is_hub_reachable():
        use_cache_only()  # otherwise each file is retried for 20 s and more
    try:
        settings = settings_file(source, "config.json")
    except ModelError as error:
        if not is_local and not is_hub_reachable():
            raise HubUnreachable(f"The model {source}", "model.path") from error
        raise
    if not settings and not is_local and not is_hub_reachable():
        raise HubUnreachable(f"The model {source}", "model.path")
    refuse_unusable(settings, source)
    weights = weights_folder(source) if "://" not in path else None  # of a URL, small files only
    return FoundModel(source=source, settings=settings, weights=weights)


def weights_folder(source: str) -> Path | None:
    """The folder of a model's weights on this machine; None for a hub model that is not cached."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import try_to_load_from_cache

    single, index = (try_to_load_from_cache(source, name) for name in (SINGLE, INDEX))
    if isinstance(single, str):
        return Path(single).parent
    if isinstance(index, str):
        folder = Path(index).parent
        shards = set(read_index(Path(index)).values())
        return folder if all((folder / shard).is_file() for shard in shards) else None
    return None


def model_lines(
    name: str, model: FoundModel, engines: EnginesConfig, num_parameters: int | None
) -> list[CheckLine]:
    """
    Args:
        name: as the recipe has it.
    """
    size = "" if num_parameters is None else f", {num_parameters / 1e6:,.1f}M parameters"
    lines = [CheckLine("ok", "model", f"{name}: {architecture(model.settings)}{size}")]
    asked, limit = engines.max_model_len, text_setting(model.settings, CONTEXT)
    if asked is not None and limit is not None and asked > limit and not is_stretched(model):
        lines.append(
            CheckLine(
                "fail",
                "context",
                f"engines.max_model_len is {asked:,}, and vLLM refuses more than the model's own "
                f"context, {limit:,}. Nearest valid value: {limit}.",
            )
        )
    heads = text_setting(model.settings, "num_attention_heads")
    ways = engines.tensor_parallel_size
    if heads is not None and heads % ways:
        valid = max(n for n in range(1, ways + 1) if heads % n == 0)
        lines.append(
            CheckLine(
                "fail",
                "tensor parallel",
                f"engines.tensor_parallel_size is {ways}, which does not divide the model's "
                f"{heads} attention heads. Nearest valid value: {valid}.",
            )
        )
    return lines


def is_stretched(model: FoundModel) -> bool:
    """Whether the context is scaled beyond the positions in config.json."""
    return any(f'"{kind}"' in json.dumps(model.settings) for kind in STRETCHED)


def text_setting(settings: JsonObject, key: str) -> int | None:
    """A number from config.json, also from a nested language-model section."""
    value = settings.get(key, text_part(settings).get(key))
    return int(value) if value is not None else None


def vocabulary_lines(tokenizer: Any, settings: JsonObject) -> list[CheckLine]:
    """Check that every token of a prompt has a row in the embedding."""
    rows = text_setting(settings, "vocab_size")
    if rows is None:
        return []
    beyond = sorted((i, token) for token, i in tokenizer.get_vocab().items() if i >= rows)
    if not beyond:
        return []
    names = some([f"{token!r} ({i})" for i, token in beyond])
    text = (
        f"the model's embedding has {rows:,} rows, and the tokenizer has larger token ids: {names}"
    )
    if all(any(word in token.lower() for word in MODALITIES) for _, token in beyond):
        return [CheckLine("warn", "vocabulary", f"{text}, which no prompt may contain")]
    advice = "Use the model's own tokenizer, or resize the model's embedding."
    return [CheckLine("fail", "vocabulary", f"{text}. {advice}")]


def look_at_model(
    config: RunConfig, loaded: dict[str, LoadedData]
) -> tuple[list[CheckLine], int | None]:
    """All lines about the model, and its number of parameters if known.

    Problems without a valid prompt for its tokenizer are removed from `loaded`.
    """
    num_parameters = None
    try:
        model = find_model(config.model.path, config.output.storage)
        if model.weights is not None:
            tensors = read_weights(model.weights)
            num_parameters = count_parameters(tensors)
            refuse_unfit(tensors, model.settings, str(model.weights))
        lines = model_lines(config.model.path, model, config.engines, num_parameters)
        builder = load_builder(model.source, config.model)
    except HubUnreachable as error:
        unseen = CheckLine("warn", "context, tokens", "not checked: the model is not available")
        return [CheckLine("warn", "model", f"not checked: {error}"), unseen], None
    except MgrpoError as error:
        return [CheckLine("fail", "model", str(error))], num_parameters
    lines += vocabulary_lines(builder.tokenizer, model.settings)
    limit = text_setting(model.settings, CONTEXT)
    return lines + prompt_lines(builder, config, loaded, limit), num_parameters
