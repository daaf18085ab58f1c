"""Checks that the model is complete, and that weights, tokenizer and prompts suit the recipe."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgrpo.check.prompts import prompt_lines
from mgrpo.config import EnginesConfig, ModelConfig, RunConfig, StorageConfig
from mgrpo.data.problems import LoadedData
from mgrpo.errors import HubUnreachable, MgrpoError
from mgrpo.findings import CheckLine
from mgrpo.models.catalog import is_hub_name
from mgrpo.models.node_model import driver_model
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
from mgrpo.storage.files import is_url

CONTEXT = "max_position_embeddings"
STRETCHED = ("yarn", "linear", "dynamic", "longrope", "su", "mrope", "llama3")  # types of RoPE
MODALITIES = ("image", "audio", "video", "vision")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """Facts about a model that are known without loading it."""

    source: str  # the folder with its configuration and tokenizer
    commit: str  # of the hub; "" for another model
    settings: JsonObject  # config.json
    weights: Path | None  # the folder with its weights, where they are on this machine


def find_model(model: ModelConfig, storage: StorageConfig) -> FoundModel:
    """Find the recipe's model and read its config.json.

    Raises:
        ModelError: there is no such model, or it cannot be used.
        HubUnreachable: its hub does not answer, and it is not in the cache.
    """
    source = driver_model(model.path, storage, model.revision).driver_dir
    settings = settings_file(source, "config.json")
    refuse_unusable(settings, source)
    is_fetched = is_hub_name(model.path) or is_url(model.path)  # small files, and maybe weights
    weights = None if is_fetched and not has_weights(Path(source)) else Path(source)
    commit = Path(source).name if is_hub_name(model.path) else ""
    return FoundModel(source=source, commit=commit, settings=settings, weights=weights)


def has_weights(folder: Path) -> bool:
    """Whether a model's weights are there, each of their files."""
    if (folder / INDEX).is_file():
        return all((folder / shard).is_file() for shard in set(read_index(folder / INDEX).values()))
    return (folder / SINGLE).is_file()


def model_lines(
    name: str, model: FoundModel, engines: EnginesConfig, num_parameters: int | None
) -> list[CheckLine]:
    """
    Args:
        name: as the recipe has it.
    """
    size = "" if num_parameters is None else f", {num_parameters / 1e6:,.1f}M parameters"
    at = f" at {model.commit}" if model.commit else ""
    lines = [CheckLine("ok", "model", f"{name}{at}: {architecture(model.settings)}{size}")]
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
        model = find_model(config.model, config.output.storage)
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
