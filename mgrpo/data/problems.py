"""Problems to train on and to evaluate on: loaded, measured, and sampled in order.

Unusable rows are counted by reason and never silently dropped: the run does not start if they
exceed `data.max_dropped_fraction` of the rows.
"""

from __future__ import annotations

from collections import Counter

from actors.templates import PromptBuilder
from mgrpo.config.data import (
    DataConfig,
    DataSource,
    HuggingFaceSource,
    JsonlSource,
    ReasoningGymSource,
)
from mgrpo.config.layers import LayerConfig
from mgrpo.data.formats.generated import load_generated
from mgrpo.data.formats.huggingface import load_huggingface
from mgrpo.data.formats.jsonl import load_jsonl
from mgrpo.data.formats.rows import LoadedData
from mgrpo.data.lengths import characters_of
from mgrpo.data.sampler import ShufflingSampler
from mgrpo.errors import DataError

__all__ = [
    "LoadedData",
    "ShufflingSampler",
    "drop_long_prompts",
    "enforce_max_dropped",
    "load_problems",
    "source_name",
    "usable_data",
]

TOO_LONG = "longer than data.max_prompt_tokens"


def load_problems(source: DataSource) -> LoadedData:
    """Read or generate a source's problems. The same source gives the same problems.

    An answer with "####" in it, as GSM8K has, is the text after the last one.

    Raises:
        DataError: there is no usable problem; the message has advice.
    """
    match source:
        case JsonlSource():
            return load_jsonl(source)
        case HuggingFaceSource():
            return load_huggingface(source)
        case ReasoningGymSource():
            return load_generated(source)


def usable_data(
    source: DataSource, config: DataConfig, builder: PromptBuilder, layer: LayerConfig
) -> LoadedData:
    """A source's problems whose layer-1 prompts fit, or DataError if too many do not."""
    data = drop_long_prompts(load_problems(source), builder, layer, config.max_prompt_tokens)
    enforce_max_dropped(data, config.max_dropped_fraction, source)
    return data


def drop_long_prompts(
    data: LoadedData,
    builder: PromptBuilder,
    layer: LayerConfig,
    max_prompt_tokens: int,
    *,
    max_fitting: int | None = None,
) -> LoadedData:
    """The data without problems with too long layer-1 prompts, which are counted.

    Args:
        max_fitting: measure from the longest text down, and stop after that many consecutive
        fitting prompts; None measures all.
    """
    kept = LoadedData(
        num_dropped=Counter(data.num_dropped),
        examples={reason: list(where) for reason, where in data.examples.items()},
    )
    max_characters = characters_of(builder.tokenizer, max_prompt_tokens)
    order = sorted(range(len(data.problems)), key=lambda i: -len(data.problems[i].question))
    faults: dict[int, tuple[str, str]] = {}
    num_fitting = 0
    for index in order:
        question = data.problems[index].question
        if fault := prompt_fault(question, builder, layer, max_prompt_tokens, max_characters):
            faults[index] = fault
            num_fitting = 0
            continue
        num_fitting += 1
        if num_fitting == max_fitting:
            break
    for index, problem in enumerate(data.problems):
        if index in faults:
            reason, measured = faults[index]
            kept.drop(reason, f"{problem.problem_id}: {measured}")
        else:
            kept.problems.append(problem)
    return kept


def prompt_fault(
    question: str,
    builder: PromptBuilder,
    layer: LayerConfig,
    max_tokens: int,
    max_characters: float,
) -> tuple[str, str] | None:
    """(reason, measurement) if a question has no valid layer-1 prompt; else None."""
    if len(question) > max_characters:  # tokenising millions of characters takes a minute
        return TOO_LONG, f"{len(question):,} characters"
    try:
        tokens = len(builder.solve_prompt(layer, question))
    except (TypeError, ValueError, OverflowError) as error:
        return "refused by the tokenizer", f"{type(error).__name__}: {error}"[:100]
    return (TOO_LONG, f"{tokens} tokens") if tokens > max_tokens else None


def enforce_max_dropped(data: LoadedData, max_fraction: float, source: DataSource) -> None:
    """Raise DataError if more than `max_fraction` of the rows, or all, are unusable."""
    if data.problems and data.dropped_fraction <= max_fraction:
        return
    raise DataError(
        f"{source_name(source)}: {data.num_dropped.total()} of {data.num_rows} rows cannot be "
        f"used, and data.max_dropped_fraction allows a share of {max_fraction:g}: "
        f"{data.describe_dropped()}. Fix the data, or raise data.max_prompt_tokens or "
        "data.max_dropped_fraction."
    )


def source_name(source: DataSource) -> str:
    """The name of a source in messages."""
    if isinstance(source, ReasoningGymSource):
        return f"reasoning-gym ({', '.join(task.name for task in source.tasks)})"
    return source.path
