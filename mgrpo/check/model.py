"""Is the model there, and do its tokenizer and context length suit the recipe?"""

from __future__ import annotations

import heapq
import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.templates import PromptBuilder, Tokenizer
from mgrpo.check.data import fit_lines, problems_in
from mgrpo.check.report import CheckLine
from mgrpo.config import RunConfig, StorageConfig
from mgrpo.data import LoadedData
from mgrpo.errors import HubUnreachable, MgrpoError, ModelError
from mgrpo.hub import is_hub_reachable, use_cache_only
from mgrpo.lengths import measure_prompts
from mgrpo.types import Problem

MAX_MEASURED_PROMPTS = 4000  # a few seconds of tokenising; the run itself measures all
SAMPLE_ATTEMPT = "Let me see. 12 + 7 = 19, so the result is \\boxed{19}."


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """What could be learnt of a model without loading it."""

    source: str  # local folder or hub name
    settings: dict[str, Any]  # config.json
    num_parameters: int | None
    tokenizer: Tokenizer


def find_model(path: str, storage: StorageConfig | None = None) -> FoundModel:
    """Resolve a recipe's model.path, read its config.json and load its tokenizer.

    Raises:
        ModelError: there is no such model, or it cannot be used.
        HubUnreachable: it lives on a hub that does not answer, and is not in the cache.
    """
    from mgrpo.models.catalog import resolve_model

    source = resolve_model(path)
    if "://" in source:
        from mgrpo.models.node_model import driver_model

        source = driver_model(path, storage or StorageConfig()).driver_dir
    is_local = Path(source).is_dir()
    if not is_local and not is_hub_reachable():
        use_cache_only()  # else each file is asked for during 20 s and more
    from transformers import AutoTokenizer, PretrainedConfig  # 3 s: only when a model is looked at

    try:
        settings, _ = PretrainedConfig.get_config_dict(source)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        if not is_local and not is_hub_reachable():
            raise HubUnreachable(f"The model {source}", "model.path") from error
        raise ModelError(
            f"The model {source!r} (model.path) cannot be used: {reason}. Give a folder with "
            "config.json, tokenizer and .safetensors files, a prepared model, or a hub name."
        ) from error
    if not tokenizer.chat_template:
        raise ModelError(
            f"The tokenizer of {source!r} has no chat template, and prompts are chats. Use a model "
            "that has one, or save a chat_template.jinja beside its tokenizer."
        )
    has_weights = is_local and "://" not in path  # of an URL only the small files are here
    parameters = count_parameters(Path(source)) if has_weights else None
    return FoundModel(
        source=source, settings=settings, num_parameters=parameters, tokenizer=tokenizer
    )


def count_parameters(folder: Path) -> int:
    """Parameters in a model folder, from the headers of its safetensors files."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(
            f"{folder} has no .safetensors file, and weights are loaded from that format only. "
            "Convert the model: AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)."
        )
    total = 0
    for file in files:
        try:
            with file.open("rb") as stream:
                (length,) = struct.unpack("<Q", stream.read(8))  # header's bytes, then the header
                header = json.loads(stream.read(min(length, 100_000_000)))
        except (OSError, ValueError, struct.error) as error:
            raise ModelError(f"{file} is not a whole safetensors file: {error}.") from error
        total += sum(
            math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__"
        )
    return total


def model_lines(model: FoundModel, config: RunConfig) -> list[CheckLine]:
    architecture = (model.settings.get("architectures") or ["unknown architecture"])[0]
    size = (
        "" if model.num_parameters is None else f", {model.num_parameters / 1e6:,.1f}M parameters"
    )
    lines = [CheckLine("ok", "model", f"{model.source}: {architecture}{size}")]
    heads = text_setting(model.settings, "num_attention_heads")
    ways = config.engines.tensor_parallel_size
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


def text_setting(settings: dict[str, Any], key: str) -> int | None:
    """A number of config.json, also where the language model's part is nested."""
    value = settings.get(key, (settings.get("text_config") or {}).get(key))
    return int(value) if value is not None else None


def context_line(
    builder: PromptBuilder, config: RunConfig, problems: Sequence[Problem], limit: int | None
) -> CheckLine:
    """The longest sequence of any layer against the context that there is.

    Args:
        builder: with the run's tokenizer.
        config: the recipe.
        problems: whose prompts are measured.
        limit: the model's own context in tokens, None where it names none.
    """
    measured = heapq.nlargest(MAX_MEASURED_PROMPTS, problems, key=lambda one: len(one.question))
    lengths = measure_prompts(builder, config, measured)
    totals = lengths.layer_lengths(config)
    needed = max(totals)
    depth = totals.index(needed)
    layer = config.layers[depth]
    inner = needed - lengths.max_prompt_tokens - layer.max_completion_tokens
    text = (
        f"{needed:,} tokens at most, in layer {layer.name}: prompt {lengths.max_prompt_tokens} + "
        f"{f'attempt and guidance {inner} + ' if depth else ''}"
        f"completion {layer.max_completion_tokens}"
    )
    if len(measured) < len(problems):
        text += f" ({len(measured)} of {len(problems)} prompts measured)"
    limits = {"engines.max_model_len": config.engines.max_model_len, "the model's context": limit}
    known = {name: value for name, value in limits.items() if value is not None}
    name = min(known, key=lambda key: known[key], default="")
    if not name:
        return CheckLine("warn", "context", f"{text}; the model names no limit")
    if needed <= known[name]:
        return CheckLine("ok", "context", f"{text}; {name} holds {known[name]:,}")
    advice = f"Lower layers.{depth}.max_completion_tokens"
    if depth and layer.layout != "self_continue":
        advice += f" or set layers.{depth}.max_quote_tokens"
    elif depth:
        advice += f" or layers.{depth - 1}.max_completion_tokens"
    advice += ", or data.max_prompt_tokens so that longer rows are left out"
    if name == "engines.max_model_len":
        advice += f", or raise engines.max_model_len to {needed}"
    return CheckLine(
        "fail",
        "context",
        f"{text}; {name} is {known[name]:,}, {needed - known[name]} too few. {advice}.",
    )


def token_lines(builder: PromptBuilder, config: RunConfig, problem: Problem) -> list[CheckLine]:
    """Each correction's prompt holds the attempt's token ids as they are, in one piece."""
    lines = []
    prompt = builder.solve_prompt(config.layers[0], problem.question)
    attempt = builder.encode(SAMPLE_ATTEMPT)
    for layer in config.layers[1:]:
        if layer.max_quote_tokens is not None:
            attempt = attempt[: layer.max_quote_tokens]
        correction = builder.correction_prompt(
            layer,
            problem.question,
            parent_prompt_ids=prompt,
            parent_ids=attempt,
            guidance=layer.guidance.phrases[0],
        )
        if layer.layout == "self_continue":
            is_exact = correction[: len(prompt) + len(attempt)] == [*prompt, *attempt]
            kind = "extend the attempt's sequence exactly"
        else:
            is_exact = contains(correction, attempt)
            kind = "hold the attempt's token ids unchanged"
        lines.append(
            CheckLine("ok", "tokens", f"prompts of layer {layer.name} {kind}")
            if is_exact
            else CheckLine("fail", "tokens", f"prompts of layer {layer.name} do not {kind}.")
        )
        prompt = correction
    return lines


def contains(ids: Sequence[int], piece: Sequence[int]) -> bool:
    size = len(piece)
    return any(list(ids[i : i + size]) == list(piece) for i in range(len(ids) - size + 1))


def look_at_model(
    config: RunConfig, loaded: dict[str, LoadedData]
) -> tuple[list[CheckLine], int | None]:
    """All lines about the model; and its number of parameters, where that is known.

    Problems that make no prompt with its tokenizer are taken out of `loaded`.
    """
    try:
        model = find_model(config.model.path, config.output.storage)
    except HubUnreachable as error:
        unseen = CheckLine("warn", "context, tokens", "not checked: the model was not seen")
        return [CheckLine("warn", "model", f"not checked: {error}"), unseen], None
    except MgrpoError as error:
        return [CheckLine("fail", "model", str(error))], None
    lines = model_lines(model, config)
    if not problems_in(loaded):
        skipped = "not checked: there are no problems to build prompts from"
        return [*lines, CheckLine("warn", "context", skipped)], model.num_parameters
    builder = PromptBuilder(model.tokenizer)
    try:
        lines += fit_lines(config, builder, loaded)
        problems = problems_in(loaded)
        if not problems:
            return lines, model.num_parameters
        limit = text_setting(model.settings, "max_position_embeddings")
        lines.append(context_line(builder, config, problems, limit))
        lines += token_lines(builder, config, problems[0])
    except MgrpoError as error:
        lines.append(CheckLine("fail", "prompts", str(error)))
    return lines, model.num_parameters
