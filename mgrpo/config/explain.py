"""Pydantic's errors as ConfigFaults: dotted path, value, reason and a valid alternative."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mgrpo.config.base import RelationError
from mgrpo.config.parts import OWN
from mgrpo.config.slots import TAGS
from mgrpo.errors import ConfigFault

LONGEST_VALUE = 80  # characters of a value that a message shows
NOUNS = {"source": "source", "use": "tracker", "kind": "kind of layer"}
"""What to call what the tag of a union's sections names."""
SYNONYMS = {
    "lr": "learner.learning_rate",
    "max_steps": "steps",
    "num_steps": "steps",
    "total_training_steps": "steps",
    **dict.fromkeys(
        ("num_epochs", "epochs", "num_train_epochs", "total_epochs"),
        "steps (one epoch is the number of rows / prompts_per_step)",
    ),
    **dict.fromkeys(
        (
            *("batch_size", "train_batch_size", "per_device_train_batch_size"),
            *("rollout_batch_size", "n_samples_per_step"),
        ),
        "prompts_per_step, with layers.N.group_size completions each",
    ),
    "gradient_accumulation_steps": "learner.microbatch_tokens, a limit in tokens",
    "micro_batch_size": "learner.microbatch_tokens, a limit in tokens",
    **dict.fromkeys(
        ("mini_batch_size", "ppo_mini_batch_size", "steps_per_generation"), "objective.minibatches"
    ),
    **dict.fromkeys(
        (
            "num_generations",
            "num_samples",
            "n_samples_per_prompt",
            "rollout_n",
            "num_return_sequences",
        ),
        "layers.N.group_size",
    ),
    **dict.fromkeys(
        (
            *("max_tokens", "max_new_tokens", "max_completion_length", "max_response_length"),
            *("response_length", "generate_max_len"),
        ),
        "layers.N.max_completion_tokens",
    ),
    **dict.fromkeys(("max_prompt_length", "prompt_max_len"), "data.max_prompt_tokens"),
    **dict.fromkeys(
        ("beta", "kl_coef", "kl_beta", "kl_loss_coef", "init_kl_coef"), "objective.kl.weight"
    ),
    **dict.fromkeys(
        ("cliprange", "clip_range", "clip_ratio", "eps_clip", "epsilon_low"),
        "objective.loss.clip_low and objective.loss.clip_high",
    ),
    "epsilon_high": "objective.loss.clip_high",
    "loss_type": "objective.loss, and layers.N.aggregation for how tokens are averaged",
    "scale_rewards": "layers.N.advantage.scale_by_std",
    **dict.fromkeys(
        ("reward_funcs", "reward_func", "reward_fn", "reward_function", "reward_model"),
        "rewards.terms",
    ),
    "reward_weights": "rewards.terms.N.weight",
    **dict.fromkeys(("model_name", "model_name_or_path", "pretrain", "base_model"), "model.path"),
    "model_revision": "model.revision",
    "output_dir": "output.runs_dir",
    **dict.fromkeys(("report_to", "logger", "use_wandb"), "output.trackers"),
    **dict.fromkeys(("save_steps", "save_freq"), "checkpoints.every_steps"),
    "save_total_limit": "checkpoints.keep",
    **dict.fromkeys(("eval_steps", "test_freq"), "evaluation.every_steps"),
    **dict.fromkeys(
        ("dataset", "train_dataset", "dataset_name", "train_files", "prompt_data"), "data.train"
    ),
    **dict.fromkeys(("eval_dataset", "val_files", "test_dataset"), "data.heldout"),
    "gradient_clipping": "learner.max_grad_norm",
    "warmup_ratio": "learner.warmup_steps, a number of steps",
    **dict.fromkeys(("lr_scheduler_type", "lr_scheduler"), "learner.schedule"),
    "bf16": "model.dtype and learner.dtype",
    "fp16": "model.dtype and learner.dtype",
    "vllm_gpu_memory_utilization": "engines.gpu_memory_utilization",
    "tensor_model_parallel_size": "engines.tensor_parallel_size",
    "enable_thinking": "model.chat_template_kwargs: {enable_thinking: false}",
    **dict.fromkeys(("stop_strings", "stop_words", "stop_sequences"), "layers.N.stop"),
    "stop_token_ids": "layers.N.stop.tokens, or model.stop_tokens for all layers",
    **dict.fromkeys(("prompt_template", "template"), "layers.N.user_template"),
    "optimizer": "learner.betas and learner.weight_decay; the optimizer is AdamW",
    **dict.fromkeys(
        ("top_p", "top_k", "min_p"),
        "There is none: tokens that are never sampled would give the recorded log-probabilities "
        "another distribution than the trained one. Use sampling.temperature.",
    ),
    **dict.fromkeys(
        ("lora_rank", "lora_r", "lora_alpha", "use_peft", "peft_config"),
        "There is no LoRA: all weights train.",
    ),
}
"""What keys of TRL, verl and OpenRLHF are called here; a sentence where there is no such thing."""
NEEDED = "this key is needed."
NO_SUCH_VALUE = "not one of the allowed values."


def explain(error: ValidationError, root: type[BaseModel]) -> list[ConfigFault]:
    """One ConfigFault per thing that pydantic refused in a recipe for `root`."""
    return [fault for details in error.errors() for fault in faults_in(details, root)]


def faults_in(details: Any, root: type[BaseModel]) -> list[ConfigFault]:
    """The faults that one entry of `ValidationError.errors()` stands for."""
    path, section, field, siblings = locate(details["loc"], root)
    context, kind = details.get("ctx", {}), details["type"]
    cause = context.get("error")
    if isinstance(cause, RelationError):
        return [
            ConfigFault(dotted([*path, p.path]), p.value, p.reason, p.suggestion)
            for p in cause.faults
        ]
    where, value = dotted(path), shortened(details["input"])
    if kind == "extra_forbidden":
        key = str(path[-1])
        suggestion = owners(key, siblings) or nearest_key(key, section, root)
        return [ConfigFault(where, value, "there is no such key.", suggestion)]
    if kind == "missing":
        return [ConfigFault(where, "(not given)", NEEDED, meaning(field))]
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        key = context["discriminator"].strip("'")
        if kind == "union_tag_not_found":
            return [ConfigFault(f"{where}.{key}", "(not given)", NEEDED, tags(field, key))]
        given = str(context["tag"])
        if key not in NOUNS:  # a slot, which may be written as the name alone
            return [ConfigFault(where, given, NO_SUCH_VALUE, tags(field, key, given))]
        reason = f"no such {NOUNS[key]}."
        return [ConfigFault(f"{where}.{key}", given, reason, tags(field, key, given))]
    if kind == "literal_error":
        suggestion = allowed_values(field, str(details["input"]))
        return [ConfigFault(where, value, NO_SUCH_VALUE, suggestion)]
    reason, suggestion = bound(kind, context, details["msg"])
    return [ConfigFault(where, value, reason, f"{meaning(field)} {suggestion}".strip())]


def bound(kind: str, context: dict[str, object], message: str) -> tuple[str, str]:
    """Reason and nearest valid value where a number is out of bounds; else pydantic's words."""
    if kind == "greater_than_equal":
        return f"must be {context['ge']} or more.", f"Nearest valid value: {context['ge']}."
    if kind == "less_than_equal":
        return f"must be {context['le']} or less.", f"Nearest valid value: {context['le']}."
    if kind == "greater_than":
        return f"must be above {context['gt']}.", ""
    if kind == "less_than":
        return f"must be below {context['lt']}.", ""
    if kind == "too_short":
        return f"needs at least {context['min_length']} entries.", ""
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}.", ""
    return message.replace("Input should be", "must be") + ".", ""


def locate(
    loc: Sequence[int | str], root: type[BaseModel]
) -> tuple[list[int | str], type[BaseModel], FieldInfo | None, list[type[BaseModel]]]:
    """Follow an error's location through the models.

    Returns the path without the tags that pydantic adds for unions, the innermost section on
    it, the field that it ends at (None where it ends at no declared field), and the sections that
    the union around the innermost one has.
    """
    path: list[int | str] = []
    section, field = root, None
    options: list[Any] = [root]
    siblings: list[type[BaseModel]] = []
    for part in loc:
        models = [option for option in options if is_model(option)]
        if isinstance(part, str) and len(models) > 1:  # a union's tag, not a key
            siblings, options = models, [m for m in models if tag(m) == part]
            continue
        path.append(part)
        if models:
            section = models[0]
            siblings = siblings if section in siblings else []
            field = section.model_fields.get(str(part))
            options = flattened(field.annotation) if field else []
        else:
            options = [
                item for option in options for item in flattened((get_args(option) or (Any,))[0])
            ]
    return path, section, field, siblings


def flattened(annotation: object) -> list[Any]:
    """The alternatives of a type: `A | None` gives A and NoneType."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return flattened(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [item for alternative in get_args(annotation) for item in flattened(alternative)]
    return [annotation]


def is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def owners(key: str, siblings: Sequence[type[BaseModel]]) -> str:
    """Which other sections of a union have a key, or ""."""
    names = [str(tag(section)) for section in siblings if key in section.model_fields]
    if not names:
        return ""
    if hasattr(siblings[0], "KEY"):
        return f"It belongs to entries with the key {' or '.join(names)}."
    return f"It belongs to {tag_key(siblings[0])}: {' or '.join(names)}."


def nearest_key(key: str, section: type[BaseModel], root: type[BaseModel]) -> str:
    """What the key of another system is called here, else a valid key of the section that looks
    like `key`, else where a key of that name lives."""
    if said := SYNONYMS.get(key.lower()):
        return said if said.endswith(".") else f"Here that is {said}."
    near = difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {near[0]}?"
    paths = [path for path in all_keys(root) if path.rsplit(".", 1)[-1] == key]
    if paths:
        return f"There is {' and '.join(paths)}."
    return f"Valid keys here: {', '.join(section.model_fields)}."


def all_keys(section: type[BaseModel], prefix: str = "", depth: int = 0) -> Iterator[str]:
    """The dotted path of every key, with N for a list's index."""
    for name, field in section.model_fields.items():
        yield prefix + name
        for option in flattened(field.annotation):
            item = flattened(get_args(option)[0]) if get_origin(option) is list else [option]
            infix = ".N." if get_origin(option) is list else "."
            for model in item:
                if is_model(model) and depth < 4:  # exclude_questions_of contains its own kind
                    yield from all_keys(model, f"{prefix}{name}{infix}", depth + 1)


def meaning(field: FieldInfo | None) -> str:
    """The key's docstring on one line, closed by a full stop."""
    if field is None or not field.description:
        return ""
    text = " ".join(field.description.split())
    return text if text.endswith((".", "?", ")")) else f"{text}."


def allowed_values(field: FieldInfo | None, given: str) -> str:
    values = [
        str(value)
        for option in flattened(field.annotation if field else None)
        if get_origin(option) is typing.Literal
        for value in get_args(option)
    ]
    near = difflib.get_close_matches(given, values, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"Allowed: {', '.join(values)}.{hint}"


def tags(field: FieldInfo | None, key: str, given: str = "") -> str:
    """What the key that tells a union's sections apart may say, in the field or its items."""
    options = flattened(field.annotation if field else None)
    items = [item for option in options for item in flattened((*get_args(option), None)[0])]
    known = [str(m.model_fields[key].default) for m in [*options, *items] if is_model(m)]
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    return f"Allowed: {', '.join(known)}." + (f" Did you mean {near[0]}?" if near else "")


def tag(section: type[BaseModel]) -> object:
    """What tells this section of a union apart from the others."""
    key: str | None = getattr(section, "KEY", None)  # told apart by a key that only it has
    default = key or section.model_fields[tag_key(section)].default
    return OWN if default is PydanticUndefined else default


def tag_key(section: type[BaseModel]) -> str:
    return next(key for key in TAGS if key in section.model_fields)


def dotted(path: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in path if part != "") or "(recipe)"


def shortened(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
