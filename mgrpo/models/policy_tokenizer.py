"""The policy's tokenizer and its prompt builder, used by every command."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.chat_format import known_ids
from actors.templates import PromptBuilder
from cluster.imports import importing
from mgrpo.config.run import ModelConfig
from mgrpo.errors import ModelError
from mgrpo.records.json_object import JsonObject


def load_builder(source: str, config: ModelConfig) -> PromptBuilder:
    """The prompt builder of a model.

    Args:
        source: the model's folder or hub name.
        config: of the recipe, for the chat template's arguments and the stop tokens.

    Raises:
        ModelError: the tokenizer cannot be loaded, has no chat template, or lacks a token of the
        recipe.
    """
    tokenizer = load_tokenizer(source)
    refuse_unused(tokenizer, config.chat_template_kwargs)
    return PromptBuilder(
        tokenizer,
        config.chat_template_kwargs,
        listed_stop_ids=[
            token
            for name in ("generation_config.json", "config.json")
            for token in listed_ends(settings_file(source, name))
        ],
        stop_ids=None
        if config.stop_tokens is None
        else known_ids(tokenizer, config.stop_tokens, "model.stop_tokens"),
    )


def load_tokenizer(source: str) -> Any:
    """The policy's tokenizer, which must have a chat template."""
    with importing():
        from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        tokenizer.encode("1", add_special_tokens=False)  # some settings are only read here
    except Exception as error:  # a broken tokenizer.json raises a bare Exception
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"The tokenizer of {source!r} (model.path) cannot be loaded: {reason}. It must be "
            "complete and beside config.json: fetch or copy its files again."
        ) from error
    if not tokenizer.chat_template:
        raise ModelError(
            f"The tokenizer of {source!r} has no chat template, and prompts are chats. Use a model "
            "that has one, or save a chat_template.jinja beside its tokenizer."
        )
    return tokenizer


def refuse_unused(tokenizer: Any, template_kwargs: JsonObject) -> None:
    """Refuse an argument that the chat template never uses: it is probably misspelt."""
    template = tokenizer.get_chat_template() if template_kwargs else ""
    for name in template_kwargs:
        if not re.search(rf"\b{re.escape(name)}\b", template):
            raise ModelError(
                f"The chat template does not use {name!r} of model.chat_template_kwargs. Remove "
                "it, or use the template's spelling (chat_template.jinja beside the tokenizer)."
            )


def settings_file(source: str, name: str) -> dict[str, object]:
    """A model's JSON file; empty if it has none."""
    from transformers.utils import cached_file

    try:
        found = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
        settings = json.loads(Path(found).read_text(encoding="utf-8")) if found else {}
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{name} of {source!r} (model.path) cannot be read: {reason}. Give a folder with "
            "config.json, tokenizer and .safetensors files, a prepared model, or a hub name."
        ) from error
    if not isinstance(settings, dict):
        raise ModelError(f"{name} of {source!r} (model.path) does not hold a JSON object.")
    return settings


def listed_ends(settings: dict[str, object]) -> list[int]:
    """eos_token_id of a configuration: none, one, or several."""
    ends = settings.get("eos_token_id", text_part(settings).get("eos_token_id"))
    given = ends if isinstance(ends, list) else [ends]
    return [end for end in given if type(end) is int and end >= 0]


def text_part(settings: Mapping[str, object]) -> Mapping[str, object]:
    """The language model's settings in the config.json of a vision-language model, or {}."""
    part = settings.get("text_config")
    return part if isinstance(part, dict) else {}
